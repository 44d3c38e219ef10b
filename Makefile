# fm-core: every target does the set-up it needs. Nothing but Python ≥ 3.11, pip and make is assumed.
#
#   PY          the Python to build the environment from
#   TORCH       which torch; it is installed first and alone, so that nothing else picks a build of its own
#   TORCH_ARGS  pip options for it, for example TORCH_ARGS='--index-url URL' for a build for one's GPU
#
# The stamp holds the choices that the environment was made with. They stay in force until others are given: then it is made anew.
# It is written last, so an environment without a stamp is half-made and is made anew too.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
was    = $(shell test -x $(BIN)/python && sed -n 's/^$(1)=//p' $(STAMP) 2>/dev/null)

PY         ?= $(or $(call was,PY),python3)
TORCH      ?= $(or $(call was,TORCH),torch==2.13.0)
TORCH_ARGS ?= $(call was,TORCH_ARGS)
# Fixed here: the recipes below remove the stamp that they come from.
PY         := $(PY)
TORCH      := $(TORCH)
TORCH_ARGS := $(TORCH_ARGS)

WANTED  := $(strip PY=$(PY) TORCH=$(TORCH) TORCH_ARGS=$(TORCH_ARGS))
CURRENT := $(strip $(shell test -x $(BIN)/python && cat $(STAMP) 2>/dev/null))
PIP     := $(BIN)/python -m pip install -qq
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Idle threads of torch sleep instead of spinning: with another job on the cores, small networks train ten times faster.
export OMP_WAIT_POLICY ?= passive

.PHONY: help demo test lint types pytest format bench install clean anew

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## train, sample, measure and draw: results in out/demo
	$(BIN)/fm demo --out out/demo

test: lint types pytest ## everything that must hold: lint, types, tests, doctests, every code block of README and docs

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP) ## mypy --strict on both packages
	$(BIN)/mypy

pytest: $(STAMP) ## the tests alone
	$(BIN)/pytest -n auto --dist loadfile

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP) ## every suite at a glance, in three minutes: a table, and out/bench/report.html
	$(BIN)/fm bench all --quick --out out/bench

install: $(STAMP) ## the environment alone

clean: ## remove the environment, caches and build products; out/ stays
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

ifneq ($(CURRENT),$(WANTED))
$(STAMP): anew
endif

$(STAMP): pyproject.toml
	@rm -f $@
	@echo "Installing $(TORCH) (a minute or more)"
	@$(PIP) $(TORCH_ARGS) '$(TORCH)' || { \
	  echo "$(TORCH) was not installed: pip's reason is above." >&2; \
	  echo "Run make again to retry, or choose another build: make $(MAKECMDGOALS) TORCH=torch==VERSION TORCH_ARGS='--index-url URL'" >&2; exit 1; }
	@echo "Installing fm-core and what it needs (a minute or more)"
	@$(PIP) '$(TORCH)' -e '.[dev]'
	@printf '%s\n' 'PY=$(PY)' 'TORCH=$(TORCH)' 'TORCH_ARGS=$(TORCH_ARGS)' > $@

anew:
	@found=$$($(PY) -c 'import sys; print("Python %d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null) || { \
	  echo "fm-core needs Python 3.11 or newer; PY=$(PY) is $${found:-no Python that runs}." >&2; \
	  echo "Name one that is: make $(MAKECMDGOALS) PY=python3.12" >&2; exit 1; }
	@$(PY) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "PY=$(PY) cannot make virtual environments: its venv or ensurepip is missing." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv. Or name another Python: make $(MAKECMDGOALS) PY=python3.12" >&2; exit 1; }
	@echo "Making $(VENV) with $(PY)"
	@$(PY) -m venv --clear $(VENV)
