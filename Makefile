# What a checkout can do. Needs make and Python 3.11 to 3.13; everything else goes into .venv.
#   another interpreter:  make test PYTHON=python3.12

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input install
LOG    := $(VENV)/install.log
# A comma inside $(call ...) parts its arguments, so the extras have a name.
ALL    := '.[dev,ui]'

export HF_HUB_OFFLINE := 1

# pip's output is kept in a log and shown only when it fails.
quietly = $(1) > $(LOG) 2>&1 || { cat $(LOG); echo "Installing failed; pip's own words stand above and in $(LOG)."; exit 1; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo ui test test-ui check format clean clean-all

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

demo: $(VENV)/.runtime  ## edit the bundled clip into ./demo-output with the embedded model (CPU)
	@$(BIN)/python examples/demo.py

ui: $(VENV)/.dev  ## open the page at http://127.0.0.1:7860
	@$(BIN)/lora-edit ui

test-ui: $(VENV)/.dev  ## run the page's tests, in Chromium where it is installed
	@$(BIN)/python -m pytest -rs -m browser tests/ui

# The tests of a file run in one process, which shares their fixtures. Each process computes with one thread.
# -rs lists what was skipped, and what is missing.
test: $(VENV)/.dev  ## run every test but those in a browser
	@$(BIN)/python -m pytest -rs -m "not browser" --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.dev  ## lint, formatting, import contracts, types, code style, docs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_architecture.py tests/test_house.py tests/test_docs.py

format: $(VENV)/.dev  ## rewrite the code to the house's formatting
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove caches, build leftovers and the demo's output
	@rm -rf demo-output build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests tools examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

clean-all: clean  ## remove .venv as well
	@rm -rf $(VENV)

# torch comes first and alone: together with the rest, pip may choose another build of it than the pinned one.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "lora-edit needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is not one; try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing $(TORCH) into $(VENV) (once; a large download)"
	@$(call quietly,$(PIP) $(TORCH) -c constraints.txt)
	@touch $@

$(VENV)/.runtime: $(VENV)/.torch pyproject.toml
	@echo "Installing lora-edit"
	@$(call quietly,$(PIP) -e . -c constraints.txt)
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "Installing lora-edit and its development tools"
	@$(call quietly,$(PIP) -e $(ALL) -c constraints.txt)
	@touch $(VENV)/.runtime $@
