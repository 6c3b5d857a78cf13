# Each target sets up what it needs in .venv; python3, pip and make are enough.
PYTHON ?= python3
VENV := .venv
# Tests wait more than they compute; each process has servers of its own.
JOBS ?= 2
export PYTHON

.PHONY: help demo test faults lint format bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: ## a real server, real traffic, a real PostgreSQL: sent = stored (ARGS="--seconds 30 --rate 500 --keep")
	@scripts/venv demo
	@$(VENV)/bin/auditlog demo $(ARGS)

test: ## all tests, on an embedded PostgreSQL 18 and 16, in two processes (ARGS="-k name" JOBS=0)
	@scripts/venv dev
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

faults: ## try to lose records, for ten minutes; prints a table (ARGS="--kills 20 --only kill")
	@scripts/venv dev
	@$(VENV)/bin/python -m tests.faults $(ARGS)

lint: ## ruff, mypy, the import contract
	@scripts/venv dev
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: ## let ruff put the code in order
	@scripts/venv dev
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: ## ours, the competitors and the limit in one run, as ratios
	@scripts/venv bench
	@$(VENV)/bin/python -m benchmarks $(ARGS)

clean: ## remove the environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
