# The habits of this repository, one word each. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(shell command -v python3.11 python3 2>/dev/null))
UV_VERSION := 0.13.8
RUN := .venv/bin
UV := $(RUN)/uv
OPENCODE := sandbox/opencode/node_modules/.installed
OPENID := tests/oidc_provider/node_modules/.installed
PEERS := tests/bench/peers/.venv/installed tests/bench/peers/node_modules/.installed
AGENT := sandbox/opencode/node_modules/opencode-ai/bin/opencode.exe
export VIRTUAL_ENV := $(CURDIR)/.venv
# buf finds its plugins on the path.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# What `buf breaking` compares with: the last release, or the last commit while there is none.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-parse --quiet --verify HEAD~1)

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

up: install ## Start the box and chat with the agent (without a terminal: stay in the foreground)
	@if [ -t 0 ] && [ -t 1 ]; then $(RUN)/oiab up --detach && exec $(RUN)/oiab chat; else exec $(RUN)/oiab up; fi

down: ## Stop the box
	@$(RUN)/oiab down

install: .venv/installed $(OPENCODE) system ## Install everything, from the lock files

test: install test-tools ## Run all tests on real parts
	$(RUN)/pytest

check: .venv/installed ## Check style, types, walls, contracts and generated code
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/shellcheck .ci/run
	$(RUN)/python -m docs.generator --check
	$(RUN)/buf lint
	$(RUN)/buf format --diff --exit-code --path proto/orginabox proto
	@if [ -n "$(BASE)" ]; then echo "buf breaking against $(BASE)"; $(RUN)/buf breaking --against '.git#ref=$(BASE)'; fi
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
		$(MAKE) --no-print-directory --silent generate OUT="$$fresh" && \
		diff --recursive --brief --exclude __pycache__ "$$fresh/gen" gen || { echo "gen/ is not what the contracts say: run make generate"; exit 1; }

generate: OUT ?= .
generate: .venv/installed ## Generate gen/ from the contracts
	@mkdir -p $(OUT)/gen
	$(RUN)/buf generate --output $(OUT) 2> >(grep -v '^Writing' >&2)
	$(RUN)/buf build proto --as-file-descriptor-set --exclude-source-info -o $(OUT)/gen/descriptor.binpb

format: .venv/installed ## Put code and contracts in form
	$(RUN)/ruff check --fix --quiet
	$(RUN)/ruff format
	$(RUN)/buf format --write --path proto/orginabox proto

docs: .venv/installed ## Make the reference pages and build the documentation into docs/site
	$(RUN)/python -m docs.generator
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml

docs-serve: .venv/installed ## Show the documentation on port 3001
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs serve --config-file docs/mkdocs.yml --dev-addr 127.0.0.1:3001

chaos: install test-tools ## Hurt a whole box for ten minutes, check that it keeps its promises, and write operate/chaos.md
	$(RUN)/python -m tests.chaos --page

bench: install $(PEERS) ## Measure, against peers in the same run, and write docs/pages/operate/benchmarks.md
	$(RUN)/python -m tests.bench

lock: .venv/uv ## Renew the lock files from pyproject.toml
	$(UV) pip compile pyproject.toml --group dev --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --quiet --output-file requirements.lock
	$(UV) pip compile --group bench --constraint requirements.lock --upgrade --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --python-version 3.11 --quiet --output-file requirements-bench.lock

clean: ## Remove what was installed here (not the data of a box)
	rm -rf .venv sandbox/opencode/node_modules tests/bench/peers/.venv tests/bench/peers/node_modules tests/oidc_provider/node_modules .mypy_cache .ruff_cache .pytest_cache

.venv/uv:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" 2>/dev/null || { echo "Python 3.11 is needed. Install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(RUN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

.venv/installed: .venv/uv requirements.lock pyproject.toml
	@echo "installing Python packages…"
	$(UV) pip sync --quiet --require-hashes requirements.lock
	$(UV) pip install --quiet --no-deps --editable .
	@touch $@

$(OPENCODE): sandbox/opencode/package.json sandbox/opencode/package-lock.json
	@command -v npm >/dev/null || { echo "Node.js 20 with npm is needed for the agent: install nodejs and npm"; exit 1; }
	@echo "installing the agent…"
	@# Not `npm ci`: it refuses lock files that npm 11 itself writes, without the binaries of other platforms.
	@# The agent's own script puts its binary in place, also where an .npmrc turns scripts off.
	cd sandbox/opencode && npm install --no-save --no-fund --no-audit --loglevel error --ignore-scripts=false
	@$(AGENT) --version >/dev/null || { echo "npm installed the agent, but $(AGENT) does not run"; exit 1; }
	@touch $@

tests/bench/peers/.venv/installed: .venv/uv requirements-bench.lock
	@echo "installing the peers of the benchmarks…"
	$(PYTHON) -m venv --without-pip tests/bench/peers/.venv
	$(UV) pip sync --quiet --python tests/bench/peers/.venv/bin/python --require-hashes requirements-bench.lock
	@touch $@

tests/bench/peers/node_modules/.installed: tests/bench/peers/package.json tests/bench/peers/package-lock.json
	cd tests/bench/peers && npm ci --no-fund --no-audit --silent
	@touch $@

$(OPENID): tests/oidc_provider/package.json tests/oidc_provider/package-lock.json
	@echo "installing the OpenID provider of the tests…"
	cd tests/oidc_provider && npm ci --no-fund --no-audit --silent
	@touch $@

# install-missing PROGRAMS, PACKAGES, WHY: install Debian packages as root, else say what to do.
define install-missing
@for program in $(1); do command -v $$program >/dev/null && continue; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing $(2)…"; apt-get update -qq >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) >/dev/null; break; \
	else echo "$$program is missing, $(3): sudo apt-get install $(2)"; exit 1; fi; done
endef

system:
	$(call install-missing,bwrap socat,bubblewrap socat,which the sandbox is made of)

test-tools: $(OPENID)
	$(call install-missing,tmux jq curl faketime chromium,tmux jq curl faketime chromium,which the tests use)

.PHONY: help up down install test check generate format docs docs-serve chaos bench lock clean system test-tools
