# Everything from a clone. Needed: Python 3.11 or newer, git, make. The rest is installed into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help demo test test-all parts check lint format bench attacks proto clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

demo: $(STAMP) ## a short story on a real Envoy: the actions and the modes
	@$(BIN)/policyd demo

test: $(STAMP) ## every test, the long ones in their usual size; says what it skips and why
	@$(BIN)/python -m tests.everything -rs

test-all: $(STAMP) ## every test, the long ones whole
	@$(BIN)/python -m tests.everything --all -rs

parts: $(STAMP) ## gets what some tests use for real: a Kubernetes API server, SDKs for Node.js and more; minutes, once
	@$(BIN)/python -m tests.built

check: lint ## what must pass before a commit: format, lint, types, floors, tests without Envoy
	@$(BIN)/pytest -rs -m "not envoy"

lint: $(STAMP) ## format, lint, types, floors, the Dockerfile
	@failed=0; \
	$(BIN)/ruff format --check . || failed=1; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/mypy || failed=1; \
	$(BIN)/lint-imports || failed=1; \
	$(BIN)/hadolint Dockerfile || failed=1; \
	exit $$failed

format: $(STAMP) ## puts the code into its form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP) ## policyd beside an empty echo server, in one run
	@$(BIN)/python -m bench

attacks: $(STAMP) ## what one caller can do to another, in some minutes
	@$(BIN)/python -m bench.attacks

proto: $(STAMP) ## generates the message classes from proto/
	@$(BIN)/python proto/generate.py

clean: ## removes what make has installed and what tools have cached
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# uv installs exactly what uv.lock names, hashes checked. Where it is missing, the new environment gets one of its own.
# It trusts the system's certificates first, as git and pip do, else the ones it brings.
SYNC := sync --quiet --frozen --inexact --compile-bytecode
$(STAMP): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "policyd needs python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.11" >&2; exit 3; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 3; }
	@uv=$$(command -v uv) || { $(BIN)/python -m pip install --quiet --disable-pip-version-check uv && uv=$(BIN)/uv; }; \
	  UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 $$uv $(SYNC) || $$uv $(SYNC)
	@touch $@
