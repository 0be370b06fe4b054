# make run | test | ui | lint | demo | benchmark | clean     Settings: IV_DATA_ROOT, IV_DELIVERY, IV_CONFIG, DAGSTER_HOME
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 3000

.PHONY: run test ui lint demo env benchmark clean

run: .venv/installed
	$(BIN)/iv-pipeline run

demo: .venv/installed
	$(BIN)/iv-pipeline demo

ui: .venv/installed
	eval "$$($(BIN)/iv-pipeline env)" && $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

env: .venv/installed
	@$(BIN)/iv-pipeline env

test: .venv/installed-test
	$(BIN)/python -m pytest

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

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
