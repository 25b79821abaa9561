# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv first, once.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell infra/find_python.sh)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REQUIREMENTS := infra/requirements/cpu-llm.txt infra/requirements/dev.txt pyproject.toml infra/setup.sh
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: help setup demo serve test unit check format lock clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Install everything into .venv

$(STAMP): $(REQUIREMENTS)
	@infra/setup.sh "$(PYTHON)" $(VENV)
	@touch $@

demo: $(STAMP) ## The whole way on 200 synthetic studies, from reports and images to an answering endpoint
	@$(BIN)/medfilip demo

serve: $(STAMP) ## Leave the endpoint of the last demo up
	@$(BIN)/medfilip serve demo

# Two processes: tests on the shared cluster in one, those that start clusters of their own in the other, and the rest
# where there is room (tests/conftest.py).
test: $(STAMP) ## All tests
	@$(BIN)/python -m pytest -n 2

unit: $(STAMP) ## The unit tests alone, which need no Ray
	@$(BIN)/python -m pytest -n 2 tests/unit

check: $(STAMP) ## Lint, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p medfilip -p pipelines -p serve
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## Lock the CPU requirement sets again from their .in files
	$(BIN)/uv pip compile -q --no-deps --generate-hashes --python-version 3.11 --no-annotate --no-header \
		infra/requirements/cpu-llm.in -o infra/requirements/cpu-llm.txt
	$(BIN)/uv pip compile -q --no-deps --generate-hashes --python-version 3.11 --no-annotate --no-header \
		infra/requirements/dev.in -o infra/requirements/dev.txt

clean: ## Remove .venv, demo and caches
	rm -rf $(VENV) demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
