# `make demo` and `make test` are all a newcomer needs; everything else is for operating and developing.
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv)
RUN := $(UV) run --frozen --no-sync
export UV_PROJECT_ENVIRONMENT := .venv

.PHONY: help demo test test-schedules check format bench mini clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up, run the daemon on the miniature bundle, leave a dataset in demo/"
	@echo "make test   all tests"
	@echo "make test-schedules  10,000 random schedules of the scheduler, each of which replays by its seed"
	@echo "make check  format, lint, types"
	@echo "make bench  our kernels against the plain way, as ratios"
	@echo "make mini   rebuild the miniature bundle from nothing (some hours on 4 cores, resumable)"

.venv/ready: pyproject.toml uv.lock bootstrap.py
	@test "$(UV)" != .tools/uv || python3 bootstrap.py
	$(UV) sync --frozen --quiet
	@touch $@

demo: .venv/ready
	@$(RUN) imgdiffd demo

test: .venv/ready
	@$(RUN) pytest

SCHEDULES := 10000
test-schedules: .venv/ready
	@SCHEDULES=$(SCHEDULES) $(RUN) pytest -q tests/integration/test_scheduler_interleavings.py

check: .venv/ready
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy

format: .venv/ready
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

bench: .venv/ready
	@$(RUN) python -m tests.benchmarks

# In this order: each step stands on the ones before it. Every step goes on where it was stopped.
MINI := train_vae decode_scenes train_judge train_painter paint_scenes train_rewriter train_segmenter train_clip train_blip train_captioner
mini: .venv/ready
	@for step in $(MINI); do $(RUN) python -m imgdiffd.models.mini.$$step || exit; done
	@$(RUN) imgdiffd mini calibrate
	@$(RUN) imgdiffd mini evaluate

clean:
	rm -rf .venv .tools demo build
