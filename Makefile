# Latentline. `make help` lists the targets; python3, make and git are all that is assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Telemetry of DVC, Prefect and MLflow is off unless you turn it on.
export DO_NOT_TRACK ?= true
export DVC_NO_ANALYTICS ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
# Stages are run by DVC as `python -m stages.NAME`: that python is this one.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow faults lint check bench ui clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## Create .venv and install the tested set into it

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip check
	@# pip compiles on one core, this on all; some packages hold files that are not meant to compile.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $(READY)

demo: $(READY) ## Run the whole line on handwritten digits and print the figures
	$(BIN)/python -m pipelines run

test: $(READY) ## Set up and pass the tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(READY) ## The tests that take minutes
	$(BIN)/python -m pytest -m slow

faults: $(READY) ## Kill, fill, damage: what must survive, with a table of it (long; some cases need root)
	$(BIN)/python -m pytest -n 2 -m slow tests/faults --faults-table docs/faults.md

lint: $(READY) ## Format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check: $(READY) ## Validate params.yaml
	$(BIN)/python -m stages.params

THREADS ?= 1
bench: $(READY) ## Measure speed beside peers and the machine's ceiling (THREADS=1; an idle machine)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -W ignore -m benchmarks --threads $(THREADS)

ui: $(READY) ## Start the MLflow and Prefect pages on loopback (Ctrl-C stops both)
	$(BIN)/python -m pipelines ui

clean: ## Remove the virtual environment and unfinished work (not data/, not the DVC cache)
	rm -rf $(VENV) .work .pytest_cache .ruff_cache
