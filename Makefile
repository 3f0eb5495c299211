# Every target makes its own environment. PY=python3 uses an interpreter that has everything instead, e.g.
# `make test-gpu PY=python3`; VENV=DIR puts the environment elsewhere.
PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.installed
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

ifdef PY
ENVIRONMENT :=
else
ENVIRONMENT := $(STAMP)
PY := $(VENV)/bin/python
endif

# Processes of `make test`, each with one thread for torch and BLAS.
WORKERS ?= 2

# `make bench` writes OUT, which `fovbench compare` reads; `make check BASE=REF` compares with REF in turns.
OUT ?= bench.json
PROCESSES ?= 10
BASE ?= main

.PHONY: demo test lint bench bench-bars check test-gpu bench-gpu clean

demo: $(STAMP)
	$(VENV)/bin/fovbench demo

# What an `alone` test asserts depends on time or on free cores: those run afterwards, one by one. Either part fails
# the whole, and both are run. A test that hangs shows where, and ends its process.
test: NO_HANG = -o faulthandler_timeout=240 -o faulthandler_exit_on_timeout=true
test: $(ENVIRONMENT)
	status=0; \
	$(PY) -m pytest $(NO_HANG) -n $(WORKERS) --dist loadscope -m "not alone" || status=1; \
	$(PY) -m pytest $(NO_HANG) -m alone || status=1; \
	exit $$status

lint: $(ENVIRONMENT)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

bench: $(ENVIRONMENT)
	$(PY) -m fovcache.bench.regression.measure $(OUT) --processes $(PROCESSES)

bench-bars: $(ENVIRONMENT)
	$(PY) -m pytest tests/benchmarks -m "not needs_cuda"

check: $(ENVIRONMENT)
	$(PY) -m fovcache.bench.cli check $(BASE) $(if $(JSON),--json $(JSON))

test-gpu: $(ENVIRONMENT)
	FAIL_WITHOUT_CUDA=1 $(PY) -m pytest tests/gpu

bench-gpu: $(ENVIRONMENT)
	FAIL_WITHOUT_CUDA=1 $(PY) -m pytest tests/benchmarks -m needs_cuda

# torch comes first, at its exact version: an open range can pull gigabytes. Nothing is built in isolation,
# so that the constraints hold for setuptools too.
$(STAMP): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) setuptools $$(grep '^torch==' constraints.txt)
	$(PIP) --no-build-isolation -e '.[dev,tensorboard]'
	touch $@

clean:
	rm -rf $(VENV) build dist fovcache-demo fovbench-report bench.json *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
