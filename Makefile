# `make demo` needs Python 3.11 and nothing else: it makes .venv, then an asset.
# Variables: PYTHON, TORCH_INDEX (see scripts/make-venv.sh), PROMPT, OUT.
PROMPT ?= a wooden barrel with iron bands
OUT ?= out/barrel
BIN := .venv/bin
STAMP := .venv/.maquette-ready
DEV_STAMP := .venv/.maquette-dev-ready
VALIDATOR := tests/gltf_validator/node_modules/.package-lock.json
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

# The Khronos glTF validator, at the version of its lock file; the tests fail without it.
$(VALIDATOR): tests/gltf_validator/package.json tests/gltf_validator/package-lock.json | $(DEV_STAMP)
	npm ci --prefix tests/gltf_validator --no-audit --no-fund --loglevel=error
	@touch $@

test: $(DEV_STAMP) $(VALIDATOR)
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
