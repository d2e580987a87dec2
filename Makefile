PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests that start Ray are run one after the other in one process, all others in what is left.
TESTS := $(BIN)/python -m pytest --numprocesses 2
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-cluster services lint bench image check-image clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv with the pinned requirements and the package; done once

demo: setup  ## Run the main job end to end on generated data, 5 to 10 minutes on 2 cores
	$(BIN)/djsandbox run configs/demo.yaml

test: setup  ## Run all unit tests, and a small run of every kind: 20 to 40 minutes on 2 cores
	$(TESTS)

test-all: setup services  ## Run all tests, also the slow ones; once ended, go on with those that have not passed
	$(TESTS) -m "" --resume=.test-all

test-cluster: setup services  ## Of these, run the demo on several nodes, S3, MLflow, Prometheus
	$(BIN)/python -m pytest -m "" tests/cluster

services:  ## Install PostgreSQL, Prometheus, Chromium, Podman for the tests (Debian, as root)
	sh tests/cluster/install_services.sh

lint: setup  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## Print every benchmark's table beside its peer
	$(BIN)/python benchmarks/trial_loop.py
	$(BIN)/python benchmarks/llava_loop.py
	$(BIN)/python benchmarks/t2v_loop.py
	$(BIN)/python benchmarks/stats.py
	$(BIN)/python benchmarks/operators.py
	$(BIN)/python benchmarks/orchestration.py
	$(BIN)/python benchmarks/many_trials.py
	$(BIN)/python benchmarks/early_stopping.py
	$(BIN)/python benchmarks/threshold_search.py
	$(BIN)/python benchmarks/streaming.py
	$(if $(SANDBOX_SOURCE),$(BIN)/python benchmarks/pools.py --sandbox-source $(SANDBOX_SOURCE),\
	  @echo "pools.py compares with a file of Data-Juicer: make bench SANDBOX_SOURCE=PATH"; \
	  echo "(python benchmarks/pools.py says where to get it)")

image:  ## Build the image of every node of a cluster, with Docker
	docker build --tag djsandbox-ray:0.1.0 --build-arg GIT_COMMIT=$$(git rev-parse HEAD) .

check-image: setup  ## Check the Dockerfile by its rules; needs no Docker
	$(BIN)/python cluster/check_dockerfile.py

clean:  ## Remove .venv and caches; results in ./sandbox stay
	rm -rf $(VENV) .test-all .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "Python 3.11.5 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --no-deps -e .
	@touch $(STAMP)
