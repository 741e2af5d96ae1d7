# `make demo` and `make test` are all a newcomer needs; everything else is for operating and developing.
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv)
RUN := $(UV) run --frozen --no-sync
export UV_PROJECT_ENVIRONMENT := .venv

.PHONY: help demo test test-schedules test-chaos check format reference bench bench-gpu bench-store bench-mix bench-export mini install install-venv install-units uninstall test-systemd test-powercut clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up, run the daemon on the miniature bundle, leave a dataset in demo/"
	@echo "make test   the unit tests, then the integration tests, on all cores: about $(TEST_MINUTES) here"
	@echo "make test-long  what shows one thing slowly: real compilation, large data; and every property with 1,000 examples"
	@echo "make test-schedules  10,000 random schedules of the scheduler, each of which replays by its seed"
	@echo "make test-chaos  kill -9 at 200 points, every write of the database refused, 2,000 hostile clients and calls"
	@echo "make test-soak  half an hour of small jobs: does memory, a descriptor, the log or the disk grow? SOAK_MINUTES=30"
	@echo "make check  format, lint, types"
	@echo "make reference  the man page and the pages of docs/reference: commands, settings and HTTP"
	@echo "make bench  our kernels against the plain way, as ratios"
	@echo "make bench-gpu  the same at real size, on a machine with a CUDA GPU"
	@echo "make bench-store  results recorded a second, start and status with a million captions, files dropped at once"
	@echo "make bench-mix  samples shuffled into an instruction set of 665,298 records: seconds and peak memory"
	@echo "make bench-export  2,000 and 20,000 samples in three formats: peak memory and seconds"
	@echo "make install   as root: the daemon as a systemd service below PREFIX (default: /usr/local)"
	@echo "make uninstall as root: all of it but settings, database and pictures"
	@echo "make test-systemd  as root: boot a real systemd in a container and live through start, kill -9 and stop"
	@echo "make test-powercut  cut the power of a machine in QEMU 20 times amid the work, and look at its disk"
	@echo "make mini   rebuild the miniature bundle from nothing (some hours on 4 cores, resumable)"

.venv/ready: pyproject.toml uv.lock bootstrap.py
	@test "$(UV)" != .tools/uv || python3 bootstrap.py
	@echo "setting up .venv, with several GB of packages: a minute from uv's cache, longer over the network"
	@$(UV) sync --frozen
	@touch $@

demo: .venv/ready
	@$(RUN) imgdiffd demo

# Python is to keep its bytecode whatever the shell says: each of the tests' many daemons would compile its sources anew.
unexport PYTHONDONTWRITEBYTECODE
CORES := $(shell nproc)
# Files go to the processes in the order of collection, unit tests first, and whole, so that their fixtures are built
# once. There is a process more than cores, since tests of daemons mostly wait.
ON_ALL_CORES := -n $(shell expr $(CORES) + 1) --dist loadfile --no-loadscope-reorder --durations 10
TEST_MINUTES := $(shell expr 1 + 26 / $(CORES)) minutes on $(CORES) cores

test: .venv/ready
	@echo "the tests take about $(TEST_MINUTES)"
	@$(RUN) pytest $(ON_ALL_CORES) -m "not long"

.PHONY: test-long
test-long: .venv/ready
	@EXAMPLES=1000 $(RUN) pytest $(ON_ALL_CORES) -m "long or hypothesis" tests/unit tests/integration

SCHEDULES := 10000
test-schedules: .venv/ready
	@SCHEDULES=$(SCHEDULES) $(RUN) pytest -q tests/integration/test_scheduler_interleavings.py

KILL_POINTS := 200
test-chaos: .venv/ready
	@KILL_POINTS=$(KILL_POINTS) FAULT_STRIDE=1 EVENT_CUTS=20 API_CALLS=2000 HOSTILE_CLIENTS=2000 $(RUN) pytest -q tests/integration/test_kill.py \
		tests/integration/test_kill_removal.py tests/integration/test_store_faults.py tests/integration/test_event_stream.py \
		tests/integration/test_store_migration.py tests/integration/test_api_schema.py tests/integration/test_hostile_clients.py

SOAK_MINUTES := 30
.PHONY: test-soak
test-soak: .venv/ready
	@nice $(RUN) python -m tests.soak --minutes $(SOAK_MINUTES)

check: .venv/ready
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy

format: .venv/ready
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

reference: .venv/ready
	@$(RUN) python -m tests.reference.command_pages
	@$(RUN) python -m tests.reference.http_page

bench: .venv/ready
	@$(RUN) python -m tests.benchmarks

# BENCH_PYTHON=python3 takes the packages that are there already: torch, torchvision, diffusers, transformers,
# accelerate, ultralytics, safetensors, huggingface-hub, pillow, numpy, pydantic and rich; xformers is used if there.
bench-gpu: $(if $(BENCH_PYTHON),,.venv/ready)
	@$(or $(BENCH_PYTHON),$(RUN) python) -m tests.benchmarks --gpu

bench-store: .venv/ready
	@$(RUN) python -m tests.benchmarks.store

bench-mix: .venv/ready
	@$(RUN) python -m tests.benchmarks.mixing

bench-export: .venv/ready
	@$(RUN) python -m tests.benchmarks.exporting

# In this order: each step stands on the ones before it. Every step goes on where it was stopped.
MINI := train_vae decode_scenes train_judge train_painter fit_preview paint_scenes train_rewriter train_segmenter train_clip train_blip train_captioner
mini: .venv/ready
	@for step in $(MINI); do $(RUN) python -m imgdiffd.mini.$$step || exit; done
	@$(RUN) imgdiffd mini calibrate
	@$(RUN) imgdiffd mini evaluate

# The service: an environment of its own with the locked packages, units, user, folders. DESTDIR= for packagers.
PREFIX := /usr/local
DESTDIR :=
PYTHON := /usr/bin/python3
LIB := $(DESTDIR)$(PREFIX)/lib
SETTINGS := $(DESTDIR)/etc/imgdiffd/imgdiffd.toml

install: install-venv install-units
	@test -n "$(DESTDIR)" || systemd-sysusers $(PREFIX)/lib/sysusers.d/imgdiffd.conf
	@test -n "$(DESTDIR)" || systemd-tmpfiles --create $(PREFIX)/lib/tmpfiles.d/imgdiffd.conf
	@test -n "$(DESTDIR)" || systemctl daemon-reload
	@echo "installed; edit $(SETTINGS), then: systemctl enable --now imgdiffd"

install-venv:
	@test "$(UV)" != .tools/uv || python3 bootstrap.py
	@rm -rf build/lib
	@echo "setting up $(LIB)/imgdiffd, with several GB of packages"
	@umask 022 && $(UV) venv --quiet --allow-existing --relocatable --no-managed-python --python $(PYTHON) $(LIB)/imgdiffd
	@UV_PROJECT_ENVIRONMENT=$(abspath $(LIB)/imgdiffd) $(UV) sync --frozen --no-dev --no-editable \
		--no-managed-python --python $(PYTHON) --reinstall-package imgdiffd --compile-bytecode
	@rm -rf build/lib build/bdist.*
	@chmod -R a+rX $(LIB)/imgdiffd
	@umask 022 && mkdir -p $(DESTDIR)$(PREFIX)/bin
	@ln -sfn ../lib/imgdiffd/bin/imgdiffd $(DESTDIR)$(PREFIX)/bin/imgdiffd

install-units:
	@umask 022; for unit in imgdiffd.service imgdiffd.socket; do \
		install -D -m 644 systemd/$$unit $(LIB)/systemd/system/$$unit && \
		sed -i 's,/usr/local/,$(PREFIX)/,g' $(LIB)/systemd/system/$$unit || exit; done
	@umask 022 && install -D -m 755 systemd/device-nodes $(LIB)/imgdiffd/device-nodes
	@umask 022 && install -D -m 644 systemd/sysusers.d/imgdiffd.conf $(LIB)/sysusers.d/imgdiffd.conf
	@umask 022 && install -D -m 644 systemd/tmpfiles.d/imgdiffd.conf $(LIB)/tmpfiles.d/imgdiffd.conf
	@umask 022; for page in README.md CHANGELOG.md $$(find docs -type f ! -name imgdiffd.1); do \
		install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/doc/imgdiffd/$$page || exit; done
	@umask 022 && install -D -m 644 docs/reference/imgdiffd.1 $(DESTDIR)$(PREFIX)/share/man/man1/imgdiffd.1
	@umask 022 && test -e $(SETTINGS) || install -D -m 644 systemd/imgdiffd.toml $(SETTINGS)

uninstall:
	@test -n "$(DESTDIR)" || systemctl disable --now imgdiffd.service imgdiffd.socket
	@rm -rf $(LIB)/imgdiffd $(DESTDIR)$(PREFIX)/share/doc/imgdiffd
	@rm -f $(LIB)/systemd/system/imgdiffd.service $(LIB)/systemd/system/imgdiffd.socket \
		$(LIB)/sysusers.d/imgdiffd.conf $(LIB)/tmpfiles.d/imgdiffd.conf $(DESTDIR)$(PREFIX)/bin/imgdiffd \
		$(DESTDIR)$(PREFIX)/share/man/man1/imgdiffd.1
	@test -n "$(DESTDIR)" || systemctl daemon-reload
	@echo "removed; /etc/imgdiffd, /var/lib/imgdiffd, /var/cache/imgdiffd and the user imgdiffd are still there"

test-systemd: .venv/ready
	@tests/systemd/prepare.sh build/systemd
	@IMGDIFFD_SYSTEMD=$(CURDIR)/build/systemd $(RUN) pytest tests/systemd

POWER_CUTS := 20
test-powercut: .venv/ready
	@tests/powercut/prepare.sh build/powercut .venv/bin/python
	@IMGDIFFD_POWERCUT=$(CURDIR)/build/powercut POWER_CUTS=$(POWER_CUTS) TEST_LIMIT_S=7200 $(RUN) pytest tests/powercut

clean:
	rm -rf .venv .tools demo build
