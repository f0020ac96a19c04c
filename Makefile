# The habits of this repository, one word each. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
UV := .venv/bin/uv
UV_VERSION := 0.13.8
RUN := .venv/bin
export VIRTUAL_ENV := $(CURDIR)/.venv

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

generate: .venv/installed ## Generate gen/ from the contracts
	PATH="$(CURDIR)/.venv/bin:$$PATH" buf generate 2> >(grep -v '^Writing' >&2)
	$(RUN)/buf build proto --as-file-descriptor-set --exclude-source-info -o gen/descriptor.binpb

lock: .venv/uv ## Renew requirements.lock from pyproject.toml
	$(UV) pip compile pyproject.toml --group dev --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 -q -o requirements.lock

.venv/uv:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install python3.11, or name another with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(RUN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

.venv/installed: .venv/uv requirements.lock pyproject.toml
	$(UV) pip sync --quiet --require-hashes requirements.lock
	$(UV) pip install --quiet --no-deps --editable .
	@touch $@

.PHONY: help generate lock
