# Everything runs in .venv, which is made on first use; its programs are called by path.
# Tests run on all cores, a process each, so a process needs one thread.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
READY_TO_BENCH := .venv/.ready-to-bench
READY_TO_FUZZ := .venv/.ready-to-fuzz

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser fuzz fuzz-coverage parity bench docs check fix clean

help:
	@echo 'make demo    convert a real checkpoint, verify it, load it, and prove what it computes'
	@echo 'make test    run the tests; ARGS="-k name" to run some of them'
	@echo 'make test-browser   the page of convert report in headless Chromium; without one it fails'
	@echo 'make fuzz    damaged headers, manifests, rule files and so on, far more of them than the tests have;'
	@echo '             ARGS=--help says what there is; make fuzz-coverage TARGET=rules is led by coverage'
	@echo 'make parity  every model against what its original computed, in one table; ARGS=--mutants'
	@echo '             makes every mistake that the tests know, and shows that each is caught'
	@echo 'make bench   measure beside cp, a naive script and other tools; ARGS=--help says what there is'
	@echo 'make docs    write docs/models and docs/bugs.md anew, from the rule files and the bugs of the tests'
	@echo 'make check   ruff (rules and format) and mypy'
	@echo 'make fix     let ruff repair what it can'
	@echo 'make clean   remove .venv and the caches; what lies in converted/ stays'
	@echo
	@echo 'PYTHON=python3.12 makes .venv with another Python (3.11 or later).'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	@echo 'Setting up .venv with what constraints.txt lists (once; torch is large, so it takes a while)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(READY_TO_BENCH): $(READY)
	@echo 'Adding what the benches compare with (once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

$(READY_TO_FUZZ): $(READY)
	@echo 'Adding atheris (once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@touch $@

demo: $(READY)
	@$(BIN)/python examples/demo.py

test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 $(ARGS)

test-browser: $(READY)
	@BROWSER_TESTS=required OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser $(ARGS)

fuzz: $(READY)
	@OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/hostile/fuzz.py $(ARGS)

fuzz-coverage: $(READY_TO_FUZZ)
	@OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/hostile/fuzz_coverage.py $(or $(TARGET),header) -max_total_time=300 $(ARGS)

parity: $(READY)
	@OMP_NUM_THREADS=1 PYTHONPATH=examples:tests $(BIN)/python tests/runtime/parity_table.py $(ARGS)

bench: $(READY_TO_BENCH)
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY)
	@$(BIN)/python docs/generate_models.py
	@$(BIN)/python docs/generate_bugs.py

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fix: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find benchmarks converter tests examples -name __pycache__ -prune -exec rm -rf {} +
