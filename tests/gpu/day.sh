#!/usr/bin/env bash
# The benchmark and the GPU tests on a borrowed machine with a GPU, torch and transformers, but without a network.
#
#   here:    tests/gpu/day.sh pack CHECKOUT   puts the wheels that must travel into CHECKOUT/.whl (ignored by git, 34 MB)
#   there:   tests/gpu/day.sh check           what is installed, the card, a toy run, tests/gpu               (about 3 min)
#   there:   tests/gpu/day.sh bench           make bench-gpu, most of it compiling              (about 20 min, estimated)
#   there:   tests/gpu/day.sh bench PART      one part alone: steps, decoding, memory, p2p, crops, language, stages
#   there:   tests/gpu/day.sh probe           which kernels attend, a pair eager / graphed / compiled, the VAE's decoding
#
# All but `pack` run in the checkout. Results go to $OUT (default: /tmp); BASE_PYTHON is the interpreter that has torch
# (default: python3), VENV the environment made over it (default: /tmp/imgdiffd-gpu-day), PACK_PYTHON one with pip for
# `pack`, WHEELS_FOR the version of BASE_PYTHON (default: 3.12). Without a GPU everything runs at toy size.
set -eu -o pipefail

# What such a machine lacks, in the versions that uv.lock has.
BROUGHT='diffusers ultralytics ultralytics-thop pydantic pydantic-core annotated-types typing-extensions typing-inspection
rich markdown-it-py mdurl pygments importlib-metadata zipp regex requests urllib3 charset-normalizer certifi idna httpx
anyio psutil protobuf nvidia-ml-py pytest iniconfig pluggy packaging matplotlib contourpy cycler fonttools kiwisolver
pyparsing python-dateutil hypothesis sortedcontainers'
# What it must have; if one of these is missing or older, the day ends at once, with its name.
NEEDED='torch>=2.10 torchvision>=0.25 transformers>=5.0 accelerate>=1.0 huggingface_hub>=1.32 safetensors>=0.8 tokenizers
numpy pillow'
SHOWN='torch torchvision triton transformers diffusers accelerate ultralytics xformers numpy'
MOST_BYTES=67000000 # may travel, checkout and wheels together

pack() {
    local checkout=$1 python=${PACK_PYTHON:-python3} exclude locked tracked carried tag
    local wheels=$checkout/.whl platforms=()
    exclude=$(git -C "$checkout" rev-parse --git-path info/exclude)
    case $exclude in /*) ;; *) exclude=$checkout/$exclude ;; esac
    grep -qx '/.whl/' "$exclude" 2>/dev/null || echo '/.whl/' >>"$exclude"
    for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010 manylinux1; do
        platforms+=(--platform "${tag}_x86_64")
    done
    # shellcheck disable=SC2086 # lists of words
    locked=$("$python" "$checkout/tests/gpu/packages.py" locked $BROUGHT)
    # shellcheck disable=SC2086
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version "${WHEELS_FOR:-3.12}" \
        --implementation cp "${platforms[@]}" -d "$wheels" $locked
    tracked=$(git -C "$checkout" ls-files -z | (cd "$checkout" && xargs -0 du -cb) | tail -1 | cut -f1)
    carried=$(du -sb "$wheels" | cut -f1)
    echo "travels: $((tracked / 1000)) kB tracked + $((carried / 1000)) kB of wheels, of $((MOST_BYTES / 1000)) kB"
    test $((tracked + carried)) -lt "$MOST_BYTES"
}

# An environment over the interpreter that has torch. --system-site-packages would show the packages of the base
# interpreter, not those of an environment that python3 itself lives in; hence the .pth.
setup() {
    local base=${BASE_PYTHON:-python3} venv=${VENV:-/tmp/imgdiffd-gpu-day} site missing name
    for name in kernels schedulers; do # links may not travel
        ls "imgdiffd/$name/"*.py >/dev/null 2>&1 || { rm -rf "imgdiffd/$name" && ln -s "../$name" "imgdiffd/$name"; }
    done
    export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
    export CUBLAS_WORKSPACE_CONFIG=:4096:8 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 # as a worker has them
    PY=$venv/bin/python
    export PATH="$venv/bin:$PATH"
    test ! -e "$venv/ready" || return 0
    "$base" -m venv --without-pip "$venv"
    site=$("$PY" -c 'import site; print(site.getsitepackages()[0])')
    "$base" -c 'import site; print(*site.getsitepackages(), sep="\n")' >"$site/_parent.pth"
    # shellcheck disable=SC2086 # lists of words, here and below
    "$PY" tests/gpu/packages.py need $NEEDED
    missing=$("$PY" tests/gpu/packages.py missing .whl)
    echo "installing: ${missing:-nothing}"
    # shellcheck disable=SC2086
    test -z "$missing" || "$base" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" $missing
    "$PY" -c 'import cv2' 2>/dev/null || {
        echo 'no OpenCV: the stand-in serves'
        cp tests/gpu/cv2_stand_in.py "$site/cv2.py"
    }
    touch "$venv/ready"
}

facts() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,power.limit --format=csv 2>/dev/null ||
        echo 'no nvidia-smi'
    # shellcheck disable=SC2086
    "$PY" tests/gpu/packages.py versions $SHOWN
    "$PY" -c 'import torch; print("cuda", torch.version.cuda, "cudnn", torch.backends.cudnn.version(), "gpus", torch.cuda.device_count())'
    command -v gcc make ptxas || true
}

check() {
    local status=0
    setup
    facts
    echo '--- the benchmark at toy size, where missed targets are no fault'
    "$PY" -m tests.benchmarks --gpu --tiny --out "${OUT:-/tmp}/tiny" 2>&1 | tail -60 || true
    # The repository's pytest settings turn every warning into an error; another torch warns of other things.
    echo '--- tests/gpu'
    "$PY" -m pytest -q -W default -p no:cacheprovider tests/gpu 2>&1 | tail -60 || status=1
    return $status
}

bench() {
    local out=${OUT:-/tmp}/bench status=0
    setup
    facts
    mkdir -p "$out"
    if test $# != 0; then
        "$PY" -m tests.gpu.part "$1" "$out"
        return
    fi
    if ! "$PY" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        echo 'no CUDA device: the benchmark at toy size, where missed targets are no fault'
        "$PY" -m tests.benchmarks --gpu --tiny --out "$out" || true
        return
    fi
    if command -v make >/dev/null; then
        make bench-gpu BENCH_PYTHON="$PY" || status=$?
    else
        "$PY" -m tests.benchmarks --gpu || status=$?
    fi
    cp build/bench-gpu.json build/cost-table-*.json "$out/" || true
    return "$status"
}

probe() {
    setup
    facts
    "$PY" -m tests.gpu.probe
}

case ${1:-} in
    pack | check | bench | probe) "$@" ;;
    *) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" && exit 2 ;;
esac
