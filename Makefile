# Everything runs in .venv, which is made on first use; its programs are called by path.
# Tests run on all cores, a process each, so a process needs one thread.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test parity docs check fix clean

help:
	@echo 'make demo    convert a real checkpoint, verify it, load it, and prove what it computes'
	@echo 'make test    run the tests; ARGS="-k name" to run some of them'
	@echo 'make parity  every model against what its original computed, in one table; ARGS=--mutants'
	@echo '             makes every mistake that the tests know, and shows that each is caught'
	@echo 'make docs    write docs/models anew from the rule files'
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

demo: $(READY)
	@$(BIN)/python examples/demo.py

test: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 $(ARGS)

parity: $(READY)
	@OMP_NUM_THREADS=1 PYTHONPATH=examples:tests $(BIN)/python tests/runtime/parity_table.py $(ARGS)

docs: $(READY)
	@$(BIN)/python docs/generate_models.py

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fix: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find converter tests examples -name __pycache__ -prune -exec rm -rf {} +
