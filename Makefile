# Everything here sets up what it needs, from Python >= 3.11 (with its venv), git and make alone.
# Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := planner solvers costmodels
SETUP := pyproject.toml setup.cfg constraints.txt
PYTEST_ARGS ?=

.PHONY: help demo test lint format data models notebooks constraints clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make demo       plan, build and verify a shipped network"
	@echo "make test       run the tests"
	@echo "make lint       check style, types and imports"
	@echo "make format     put the code into the house's format"
	@echo "make data       fetch the whole of Fashion-MNIST into data/full (31 MB)"
	@echo "make models     train the shipped networks again and VGG16 (needs PyTorch, an hour and a half)"
	@echo "make notebooks  execute the notebooks"
	@echo "make clean      remove caches and builds; make distclean also .venv, data/full and data/large"

demo: $(VENV)/installed
	$(BIN)/blinkplan demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(SOURCES)
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

data:
	$(PYTHON) data/fetch.py

models: $(VENV)/installed-train data
	$(BIN)/python data/sample.py
	$(BIN)/python data/train.py
	$(BIN)/python data/describe.py

notebooks: $(VENV)/installed-dev
	@set -e; for notebook in notebooks/*.ipynb; do \
	  echo "$$notebook"; \
	  $(BIN)/jupyter-execute --timeout=600 "$$notebook"; \
	done

# The exact versions of an environment in which everything passed.
constraints: $(VENV)/installed-train
	{ sed -n '/^#/p' constraints.txt; \
	  { $(PIP) freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//'; \
	    grep -E '^(openvino|ziglang)' constraints.txt; } | LC_ALL=C sort -f -u; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(SOURCES) tests data benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV) data/full data/large

# A linker comes from the package index where the machine has no C compiler: a built network is a shared library.
LINKER := $(if $(shell for c in cc gcc clang; do command -v $$c; done),,linker)
comma := ,

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install the package python3 (3.11 or later)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$$($(PYTHON) --version) is too old: Python 3.11 or later is needed; name it with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments: install the package python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(SETUP) | $(VENV)/bin/python
	$(PIP) install -q -c constraints.txt setuptools
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".$(if $(LINKER),[$(LINKER)])"
	@touch $@

$(VENV)/installed-dev: $(SETUP) | $(VENV)/bin/python
	$(PIP) install -q -c constraints.txt setuptools
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".[dev$(if $(LINKER),$(comma)$(LINKER))]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-train: $(VENV)/installed-dev
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".[train]"
	@touch $@
