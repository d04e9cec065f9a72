# `make demo` needs Python 3.11 and nothing else: it makes .venv, then an asset.
# Variables: PYTHON, TORCH_INDEX (see scripts/make-venv.sh), PROMPT, OUT.
PROMPT ?= a wooden barrel with iron bands
OUT ?= out/barrel
BIN := .venv/bin
STAMP := .venv/.maquette-ready
DEV_STAMP := .venv/.maquette-dev-ready
INPUTS := pyproject.toml constraints.txt scripts/make-venv.sh

.PHONY: demo setup test lint types check clean

demo: $(STAMP)
	$(BIN)/maquette generate "$(PROMPT)" --out "$(OUT)"

setup: $(DEV_STAMP)

$(STAMP): $(INPUTS)
	scripts/system-packages.sh
	scripts/make-venv.sh
	@touch $@

$(DEV_STAMP): $(INPUTS)
	scripts/system-packages.sh --dev
	scripts/make-venv.sh dev
	@touch $(STAMP) $@

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -q -m "not gpu and not slow"

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP)
	$(BIN)/mypy

# All that CI runs.
check: lint types test

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
