# Kizuna. `make` says what there is; every target that runs something sets the project up first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Stamps: written last, so that an interrupted setup is taken up again.
DEPS    := $(VENV)/.deps.stamp
PROJECT := $(VENV)/.project.stamp
KAFKA   := .local/kafka.stamp
PROM    := .local/prometheus.stamp
# There while pip works: found at the start, the environment may be half written and is made anew.
PARTIAL := $(VENV)/.installing

.PHONY: help setup demo test faults soak simulate mutants lint format bench lock clean

help: ## Show this list
	@if [ -t 1 ]; then c=$$'\e[36m' r=$$'\e[0m'; else c= r=; fi; \
	awk -v c="$$c" -v r="$$r" 'BEGIN { FS = ":.*## " } \
	  /^[a-z-]+:.*## / { printf "  %smake %-8s%s %s\n", c, $$1, r, $$2 }' Makefile

# No file of its own: what was built is found by the digest of its sources, and looking takes no time.
.PHONY: rules
rules: $(PROJECT)
	@$(BIN)/python -m cli.compile_rules

setup: $(PROJECT) rules $(KAFKA) ## Make .venv from the lock, and fetch the local Kafka (quick when done)
	@:

demo: setup ## Run a year of a real shop through a real Kafka and Redis
	@$(BIN)/python -m cli.demo

# Whole files go to whichever process is next, in the order of tests/conftest.py.
test: setup $(PROM) ## Run all tests but the long ones, side by side; ARGS='-k tiers' chooses some, ARGS=-n0 is one by one
	@$(BIN)/pytest -m 'not long' -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

faults: setup $(PROM) ## Run the whole fault suite and the rebuilds, the long tests too, on real processes
	@$(BIN)/pytest tests/faults tests/e2e/test_rebuild*.py $(ARGS)

MINUTES ?= 20

soak: setup ## Mix all faults at random under load for MINUTES=n, then judge; ARGS='--seed 5' for the same again
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(ARGS)

RUNS ?= 1000
SEED ?= 1
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

simulate: setup ## Drive the shards through RUNS=n seeded schedules of faults, from SEED=s on, with JOBS=j processes
	@$(BIN)/python -m tests.simulation --runs $(RUNS) --seed $(SEED) --jobs $(JOBS) $(ARGS)

mutants: setup ## Break the code on purpose, in several places, and see a test fail each time
	@$(BIN)/python -m tests.mutants $(ARGS)

lint: setup ## Check style, types and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Put the code into the project's format
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

bench: setup ## Measure against other tools, in one run; ARGS are passed on
	@$(BIN)/python -m benchmarks $(ARGS)

lock: ## Choose the newest allowed versions anew (needs uv)
	@compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command 'make lock' "$$@"; }; \
	compile pyproject.toml --upgrade --all-extras -o requirements.lock; \
	compile pyproject.toml --upgrade --constraint requirements.lock -o requirements-runtime.lock; \
	printf "hatchling\nmypy\nsetuptools\n" | compile - --upgrade --constraint requirements.lock -o requirements-build.lock

clean: ## Remove everything that setup, tests and tools have made
	@rm -rf $(VENV) .local .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage \
	  htmlcov build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEPS): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "kizuna needs Python 3.11 or newer, and $(PYTHON) is not: try make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) -m venv lacks ensurepip: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@rm -f $@
	@if [ -e $(PARTIAL) ] || [ ! -x $(BIN)/python ]; then \
	  echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(PARTIAL)
	@echo "installing what requirements.lock names"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@rm -f $(PARTIAL)
	@touch $@

$(PROJECT): pyproject.toml $(DEPS)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(KAFKA): deploy/kafka/pom.xml $(PROJECT)
	@$(BIN)/python -m cli.local_jars
	@touch $@

$(PROM): cli/local_prometheus.py $(PROJECT)
	@$(BIN)/python -m cli.local_prometheus
	@touch $@
