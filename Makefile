# oploop. `make` alone explains the targets. Needs Python 3.11 or newer and make; everything else is installed into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
JOBS   ?= 3

# Many tests start processes of ours, each of which would compile all of it again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup soak demo test lint types layers unit bench lock format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: $(READY) ## install oploop and its locked dependencies into .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "oploop needs Python 3.11 to 3.13; say make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) (once, about a minute) ..."
	@$(BIN)/uv --version 2>/dev/null | grep -qF "uv $$(cat .uv-version) " || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$$(cat .uv-version)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(READY) ## run the whole loop on a made-up company: three sandboxes, two turns, under a minute
	@$(BIN)/oploop demo

test: $(READY) lint types layers ## everything CI runs: lint, types, layers, all tests
	@$(BIN)/pytest tests -n $(JOBS) --dist worksteal

unit: $(READY) ## the quick tests only
	@$(BIN)/pytest tests/unit

soak: $(READY) ## more seeded schedules of faults than the tests play: make soak SEEDS=100000 WAREHOUSE=postgres
	@$(BIN)/python -W ignore -m tests.fault.soak --seeds $(or $(SEEDS),10000) --warehouse $(or $(WAREHOUSE),duckdb)

lint: $(READY) ## ruff: style and likely bugs
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	@$(BIN)/mypy

layers: $(READY) ## import-linter: imports run one way
	@$(BIN)/lint-imports --no-cache

format: $(READY) ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(READY) ## the benchmarks, as a table of ratios
	@$(BIN)/python -m bench

lock: $(READY) ## pin the newest allowed dependencies into requirements.lock
	@$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --group dev --python-version 3.11 pyproject.toml --upgrade -o requirements.lock

clean: ## remove the environment and all caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
