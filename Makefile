# make run | test | test-kernels | test-cases | ui | explore | lint | demo | benchmark | clean     Settings: IV_DATA_ROOT, IV_DELIVERY, IV_CONFIG, DAGSTER_HOME
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 3000
DESCRIPTOR ?= vdc_type

.PHONY: run test test-kernels test-cases ui explore lint demo env benchmark clean

run: .venv/installed
	$(BIN)/iv-pipeline run

demo: .venv/installed
	$(BIN)/iv-pipeline demo

ui: .venv/installed
	eval "$$($(BIN)/iv-pipeline env)" && $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

explore: PORT = 5055
explore: .venv/installed-explore
	$(BIN)/iv-pipeline explore $(DESCRIPTOR) --port $(PORT)

env: .venv/installed
	@$(BIN)/iv-pipeline env

test: .venv/installed-test
	$(BIN)/python -m pytest

# What depends on choices and arithmetic, once more as on an old processor
test-kernels: export OPENBLAS_CORETYPE = Prescott
test-kernels: export FAISS_OPT_LEVEL = generic
test-kernels: export NUMBA_CPU_NAME = generic
test-kernels: .venv/installed-test
	$(BIN)/python -m pytest -m kernels

# Small deliveries as people send them, each through the whole pipeline; the folder of cases is named by IV_CASES
test-cases: .venv/installed-test
	$(BIN)/python -m pytest -m slow

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: .venv/installed
	$(BIN)/python -m benchmarks.run --rows $(or $(ROWS),20000)
	$(BIN)/python -m benchmarks.report

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "iv_pipeline needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing iv_pipeline into .venv (about a minute)" >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

# Embedding Atlas without PyTorch (6 GB): that makes vectors, and here they are made.
.venv/installed-explore: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[explore]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps embedding-atlas
	@touch $@

.venv/installed-test: .venv/installed-explore
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
