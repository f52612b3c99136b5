# Every target makes its own .venv from requirements.lock first; only python3 (3.11 or newer), make and git are needed.
# Variables: PYTHON (the interpreter that makes .venv), PYTEST_WORKERS (test processes), ARGS (handed to demo, bench, pytest),
# SEED (of the order in test-each).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
PYTEST_WORKERS ?= 2
ARGS ?=
SEED := $(or $(SEED),$(shell date +%s))

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
GPU_MARK := $(VENV)/.gpu
# pip shows its progress on a terminal and is quiet in a log.
QUIET := $(shell [ -t 2 ] || echo -q)
PIP := $(PY) -m pip --disable-pip-version-check $(QUIET)
# The GPU runtime has the version of the CPU one in the lock. Both install into one folder, so both leave before one comes.
GPU_RUNTIME = onnxruntime-gpu==$(shell sed -n 's/^onnxruntime==\([^ ;]*\).*/\1/p' requirements.lock)
# A machine without a screen may lack the window libraries that OpenCV opens (libGL.so.1); this build of it wants none.
HEADLESS = opencv-python-headless==$(shell sed -n 's/^opencv-python==\([^ ;]*\).*/\1/p' requirements.lock)
swap_opencv = $(PIP) uninstall -y opencv-python && $(PIP) install $(HEADLESS)
swap_runtime = $(PIP) uninstall -y onnxruntime onnxruntime-gpu && $(PIP) install $(GPU_RUNTIME)

.PHONY: help venv demo test test-each test-lowest lint bench gpu gpu-check lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## .venv with the exact versions of requirements.lock, and this package in place

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: wanted Python 3.11 or newer, found no '$(PYTHON)'. Install it, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: wanted Python 3.11 or newer, got $$($(PYTHON) --version 2>&1). Name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) lacks the venv module (Debian, Ubuntu: apt install python3-venv), or name another: make PYTHON=..." >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time takes minutes and, on Linux, about 6 GB (torch brings its CUDA libraries)."
	@$(PIP) install --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation -e .
	@if [ -e $(GPU_MARK) ]; then $(swap_runtime); fi
	@$(PY) -c 'import cv2' 2>/dev/null || { $(swap_opencv); }
	@touch $@

demo: $(STAMP) ## the whole system on synthetic scenes; nothing to download but packages
	@$(PY) -m cocoer demo $(ARGS)

# One thread a process: two processes with a thread each beat one with two, and sums do not depend on the machine.
test: export OMP_NUM_THREADS := 1
test: $(STAMP) ## all tests; no network, no GPU
	@$(PY) -m pytest -q -n $(PYTEST_WORKERS) --dist loadfile --durations 15 --durations-min 2 $(ARGS)

# Exit code 5 of pytest: the file has slow tests only.
test-each: export OMP_NUM_THREADS := 1
test-each: $(STAMP) ## every test file in a process of its own, files and tests in random order (SEED=N repeats an order)
	@echo "order: make test-each SEED=$(SEED)"; failed=; \
	for file in $$(printf '%s\n' tests/test_*.py | $(PY) -c 'import random, sys; files = sys.stdin.read().split(); random.Random("$(SEED)").shuffle(files); print(*files)'); do \
	  code=0; $(PY) -m pytest -q -p no:cacheprovider --shuffle $(SEED) $(ARGS) "$$file" || code=$$?; \
	  case $$code in 0|5) ;; *) failed="$$failed $$file" ;; esac; \
	done; \
	[ -z "$$failed" ] || { echo "failed alone, with SEED=$(SEED):$$failed" >&2; exit 1; }

test-lowest: $(STAMP) ## all tests with the oldest versions that pyproject.toml allows, in an environment of its own (downloads them)
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(VENV)/bin/uv venv -q --seed --python $(PY) "$$fresh/venv"; \
	$(VENV)/bin/uv pip install -q --python "$$fresh/venv/bin/python" --resolution lowest-direct '.[dev]'; \
	OMP_NUM_THREADS=1 "$$fresh/venv/bin/python" -m pytest -q -n $(PYTEST_WORKERS) --dist loadfile $(ARGS)

mutants: export OMP_NUM_THREADS := 1
mutants: $(STAMP) ## would the tests notice? small changes in model, data and evaluation, sampled (hours; ARGS="--sample 20")
	@$(PY) scripts/mutants.py $(ARGS)

lint: $(STAMP) ## ruff (rules and format), mypy (Windows too), direction of imports, dead code
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m mypy --platform win32 --cache-dir .mypy_cache/win32
	@$(VENV)/bin/lint-imports
	@$(PY) -m vulture

bench: $(STAMP) ## speed against the bare backbones, in one process
	@$(PY) -m cocoer benchmark $(ARGS)

gpu: $(STAMP) ## onnxruntime-gpu in place of onnxruntime, for NVIDIA machines; lasts until .venv goes
	@$(swap_runtime)
	@touch $(GPU_MARK)
	@$(PY) -c 'import onnxruntime; print("onnxruntime providers:", ", ".join(onnxruntime.get_available_providers()))'

gpu-check: $(STAMP) ## this GPU against the CPU: answers, training, distributed step, speed, memory (10 minutes)
	@$(PY) -m cocoer doctor --gpu $(ARGS)

# CUDA packages exist for Linux only; pip itself is left out; hatchling stays, for it builds this package. uv adds the hash of
# every file that the index has of a version, for all systems.
lock: ## requirements.lock anew, from the newest versions that the bounds allow
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(PYTHON) -m venv "$$fresh"; \
	"$$fresh/bin/python" -m pip $(QUIET) install '.[dev]'; \
	"$$fresh/bin/python" -m pip freeze --all > "$$fresh/frozen"; \
	sed -E -e '/^(pip==|cocoer @)/d' -e '/^(nvidia-|cuda-|triton==)/s/$$/ ; sys_platform == "linux"/' "$$fresh/frozen" \
	  | LC_ALL=C sort -f > "$$fresh/pins.txt"; \
	"$$fresh/bin/python" -m uv pip compile "$$fresh/pins.txt" --no-deps --generate-hashes --universal --python-version 3.11.5 \
	  --no-header --no-annotate --quiet -o "$$fresh/hashed.txt"; \
	{ echo "# Written by 'make lock' with $$("$$fresh/bin/python" --version); install with: pip install --require-hashes -r requirements.lock"; \
	  cat "$$fresh/hashed.txt"; } > requirements.lock

clean: ## removes .venv, caches and results; keeps checkpoints and thirdparty
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@find outputs -mindepth 1 ! -name .gitkeep -delete
