VENV ?= .venv
PYTHON ?= python3
PYTEST_ARGS ?=
ARGS ?= --target cpu --budget 2GFLOPs

INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help install search test lint docs wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "Variables: VENV ($(VENV)), PYTHON ($(PYTHON), 3.11 or newer), PYTEST_ARGS (make test PYTEST_ARGS='-k space'), ARGS"

# The stamp is made last, so that an interrupted installation is taken up again.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --editable '.[dev]'
	@touch $@

install: $(INSTALLED) ## make the environment (about two minutes, 6 GB)

search: $(INSTALLED) ## search the flagship space on this machine: ARGS='--target gpu --budget 2GFLOPs'
	$(RUN) nas.search $(ARGS)

# One thread a worker: two workers with all cores each are slower than two with one.
test: $(INSTALLED) ## run the tests
	OMP_NUM_THREADS=1 $(RUN) pytest -n 2 $(PYTEST_ARGS)

lint: $(INSTALLED) ## ruff and mypy
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

docs: $(INSTALLED) ## write the generated tables of README.md anew
	$(RUN) nas.bench docs

wheel: $(INSTALLED) ## build dist/*.whl
	$(RUN) build --wheel

clean: ## remove .venv, builds and caches; runs/ stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find nas tests -name __pycache__ -type d -prune -exec rm -rf {} +
