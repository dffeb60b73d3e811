# Every target sets up what it needs. Two to know: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup system binaries demo test test-unit test-chaos lint format generate check-generated bench bench-queue fuzz lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

system: ## Install the system packages that are missing (softhsm2), saying which
	@bash scripts/system-packages.sh

$(READY): $(LOCK) pyproject.toml
	@echo "setup: Python environment in $(VENV) from $(LOCK) (hashes checked)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

setup: system $(READY) ## Prepare the Python environment

binaries: setup ## Get etcd, Kubernetes and kwok (found, downloaded or built; cached)
	@$(BIN)/python -m local.controlplane.binaries

demo: binaries ## The whole idea, end to end, on a real control plane (KEEP=1 leaves it up)
	@$(BIN)/kekkai demo $(if $(KEEP),--keep)

test: binaries ## Lint, then every test but the long campaigns
	@$(MAKE) --no-print-directory lint
	@$(PYTEST) -n $(JOBS) --dist loadfile -m "not campaign"

test-unit: setup ## Only the tests that need no control plane
	@$(PYTEST) tests/unit -q

test-chaos: binaries ## kill -9 campaigns around the demo, longer than in `make test`
	@$(PYTEST) -m campaign -n 0 -v

lint: setup ## ruff, mypy --strict, import contracts, generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy -p operators -p api -p local
	@$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory check-generated

format: setup ## Format and mend what ruff can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

generate: setup ## Write the CRD manifests and the API reference from the models
	@$(BIN)/python -m crds.generate
	@$(BIN)/python -m operators.pools.externalgrpc.wire.generate

check-generated: generate
	@git diff --exit-code -- crds/manifests docs/reference operators/pools/externalgrpc/wire || { echo "generated files differ: run make generate and commit"; exit 1; }

bench: binaries ## Benchmarks: ratios against a peer or a bound measured in the same run
	@for b in $(filter-out bench/__init__.py bench/queue_scale.py,$(wildcard bench/*.py)); do echo "== $$b"; $(BIN)/python $$b || exit 1; done

bench-queue: binaries ## Kueue's performance test: 15,000 Workloads through a real API server (minutes)
	@$(BIN)/python bench/queue_scale.py

fuzz: setup ## Long fuzzing of every parser of outside bytes (ITERATIONS, default 2000000)
	@$(BIN)/python -m tests.fuzz --iterations $(or $(ITERATIONS),2000000)
	@$(BIN)/python -m tests.fuzz.guided --iterations $(or $(ITERATIONS),2000000)

lock: ## Resolve the dependencies anew into the hashed lock file
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-emit-index-url --no-header --upgrade -q -o $(LOCK)

clean: ## Remove the Python environment and caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
