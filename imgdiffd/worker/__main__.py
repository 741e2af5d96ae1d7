"""The worker process: `python -P -m imgdiffd.worker`."""

import os
import sys
from collections.abc import Callable

from imgdiffd.fleet.wire import Start
from imgdiffd.worker.serve import Engine, serve


def open_stages(start: Start, say: Callable[[str], None]) -> Engine:
    """Open the real engine, after setting what must be set before torch is imported."""
    say("libraries")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # products are summed in the same order on every run
    os.environ.setdefault("MKL_CBWR", "AUTO")  # and on a CPU whichever thread computes a row
    if start.compile_cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = start.compile_cache
        os.environ["TRITON_CACHE_DIR"] = os.path.join(start.compile_cache, "triton")
    if start.threads:
        os.environ["OMP_NUM_THREADS"] = str(start.threads)
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(start.threads))
    from imgdiffd.worker.engine import StageEngine

    return StageEngine(start, say)


if __name__ == "__main__":
    sys.exit(serve(open_stages))
