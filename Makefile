# Every target sets up what it needs; a second run skips what is there.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
FOLDLOG_DATA ?= $(CURDIR)/data

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Foldlog needs Python 3.11 or 3.12; install one, or say make PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: --editable '.[demo,dev,notebooks]'
	@touch $@

demo: $(VENV)/installed ## send a year of real grocery baskets through everything
	$(BIN)/foldlog demo

notebooks: $(VENV)/installed ## open the notebooks on the data in ./data, after the demo if there is none
	@test -e '$(FOLDLOG_DATA)/read_models.duckdb' || \
		{ echo "$(FOLDLOG_DATA) has no read models yet: the demo makes them, in about a minute"; \
		$(BIN)/foldlog demo --data '$(FOLDLOG_DATA)'; }
	@echo "The notebooks read $(FOLDLOG_DATA). Ctrl-C ends them; the data stays."
	FOLDLOG_DATA='$(FOLDLOG_DATA)' $(BIN)/marimo edit --host 127.0.0.1 --skip-update-check notebooks

screenshots: browser ## make those in docs/screenshots again, from a run of the demo
	$(BIN)/python -m tests.screenshots

browser: $(VENV)/installed
	@$(BIN)/python -m tests.chromium

test: browser ## all tests but the long ones
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not long'

test-long: browser ## all tests, with ten times as many drawn examples, each program started cold
	FOLDLOG_TESTS_COLD=1 FOLDLOG_TEST_MORE=10 $(BIN)/python -m pytest -n 2 --dist loadfile

interop: $(VENV)/installed ## others' programs with ours: Node, dbt, SQLAlchemy and more
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: --editable '.[interop]'
	$(BIN)/python -m pytest tests/interop

lint: $(VENV)/installed ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/marimo --quiet check --strict notebooks/*.py
	$(BIN)/python .ci/figures.py

format: $(VENV)/installed ## lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chaos: $(VENV)/installed ## 300 kills at random, and 100 while orders go their way; the ways in which Redis forgets; broken commands
	$(BIN)/python -m tests.chaos.run --kills 300
	$(BIN)/python -m tests.chaos.orders --kills 100
	$(BIN)/python -m tests.failover
	$(BIN)/python -m tests.chaos.fuzz --count 1000000

bench: $(VENV)/installed ## figures of this machine, beside their limits
	$(BIN)/foldlog bench

clean: ## remove the virtual environment and caches, not data
	rm -rf $(VENV) .browser .interop build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help demo notebooks screenshots browser test test-long interop lint format chaos bench clean
.DEFAULT_GOAL := help
