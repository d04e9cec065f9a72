# `make demo` needs Python 3.11 and nothing else: it makes .venv, then an asset.
# Variables: PYTHON, TORCH_INDEX (see scripts/make-venv.sh), PROMPT, OUT.
PROMPT ?= a wooden barrel with iron bands
OUT ?= out/barrel
BIN := .venv/bin
STAMP := .venv/.maquette-ready
DEV_STAMP := .venv/.maquette-dev-ready
VALIDATOR := tests/gltf_validator/node_modules/.package-lock.json
MCP := tests/meshy_mcp/node_modules/.package-lock.json
VIEWER := worker/web/vendor/model-viewer.js
INPUTS := pyproject.toml constraints.txt scripts/make-venv.sh

.PHONY: demo setup kernels test test-slow test-faults lint types check clean

demo: $(STAMP)
	$(BIN)/maquette generate "$(PROMPT)" --out "$(OUT)"

setup: $(DEV_STAMP) $(VIEWER) $(MCP) kernels

# Compiled once and kept beside the sources; forgets what was compiled with sources that have changed.
kernels: $(STAMP)
	$(BIN)/python scripts/warm_kernels.py

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
	npm ci --prefix tests/gltf_validator --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error
	@touch $@

# The web page's 3D viewer; without it the page shows films of the turntable.
$(VIEWER): worker/web/package-lock.json scripts/web-vendor.sh | $(DEV_STAMP)
	scripts/web-vendor.sh
	@touch $@

# Meshy's public MCP server, which a slow test drives our API with.
$(MCP): tests/meshy_mcp/package.json tests/meshy_mcp/package-lock.json | $(DEV_STAMP)
	npm ci --prefix tests/meshy_mcp --no-audit --no-fund --loglevel=error
	@touch $@

test: $(DEV_STAMP) $(VALIDATOR)
	$(BIN)/python -m pytest -q -m "not gpu and not slow and not postgres"

# What takes long: training, whole runs, the web page in Chromium, Meshy's MCP server.
test-slow: $(DEV_STAMP) $(VALIDATOR) $(VIEWER) $(MCP)
	scripts/test-servers.sh
	$(BIN)/python -m pytest -q -m "slow and not gpu and not postgres and not blender and not nerfstudio"

# All faults that the service must survive, on every database and broker: some forty minutes on one core.
test-faults: $(DEV_STAMP)
	scripts/test-servers.sh
	$(BIN)/python -m pytest -q -m "fault or postgres"

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP)
	$(BIN)/mypy

# All that CI runs.
check: lint types test

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
