# `make help` lists what there is. Everything runs inside .venv, which the first command sets up.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup repro smoke test bench lab lint lock world base weights rehearse

VENV := .venv
BIN := $(VENV)/bin
UV := uv==0.13.9
# The first of these that is Python 3.11 to 3.13, outside any environment; name another: `make setup PYTHON=/path/to/python3.12`.
PYTHON = $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; (3, 11, 4) <= sys.version_info[:3] < (3, 14) and print(sys._base_executable)' 2>/dev/null | grep . && break; done)
START := $(shell date +%s)
# What the environment was made from, and where: a change of either, or a moved folder, sets it up anew.
STAMP := $(VENV)/.made-from
WANTED = $(shell cat requirements.lock pyproject.toml | cksum) $(UV) $(CURDIR)

# Stages call the command `fakevlm`: DVC must find this environment's first.
INSIDE := export PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)";
# Few page faults, which some virtual machines are slow at: as src/fakevlm/stage.py has it for stages.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824

help:  ## list these commands
	@echo "FakeVLM, from raw images to every table and figure:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  \033[1mmake %-8s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# DVC keeps its bookkeeping in /var/tmp by default; here it goes away with the checkout. The path must be absolute (a
# relative one is taken from the current folder), hence config.local. Without .git (a ZIP from GitHub) DVC works without git.
setup:  ## make .venv with the pinned packages; nothing to do: returns at once
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$(WANTED)" ] && [ -x $(BIN)/python ]; then exit 0; fi; \
	if [ -z "$(PYTHON)" ]; then \
	    echo "FakeVLM needs Python 3.11 (from 3.11.4), 3.12 or 3.13; here is $$(command -v python3 >/dev/null && python3 --version || echo none)."; \
	    echo "  → install it (apt install python3.11-venv · brew install python@3.11 · pyenv install 3.11),"; \
	    echo "    or name it: make setup PYTHON=/path/to/python3.11"; exit 1; fi; \
	echo "Setting up $(VENV) with $(PYTHON): about 6 GB, one to three minutes."; \
	rm -f $(STAMP); \
	grep -qsF "$(CURDIR)/$(VENV)/" $(BIN)/pip || "$(PYTHON)" -m venv --clear $(VENV) || { \
	    echo "  → Python's venv module is incomplete here (Debian, Ubuntu: apt install python3.11-venv)"; exit 1; }; \
	[ -t 2 ] || quiet=--quiet; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)" && \
	$(BIN)/uv pip install $$quiet --compile-bytecode --python $(BIN)/python -r requirements.lock && \
	$(BIN)/uv pip install $$quiet --python $(BIN)/python --no-deps --editable . && \
	$(BIN)/dvc config --local core.site_cache_dir "$(CURDIR)/.dvc/tmp/site" && \
	if [ -e .git ]; then $(BIN)/dvc config --local core.no_scm false; else $(BIN)/dvc config --local core.no_scm true; fi && \
	echo "$(WANTED)" > $(STAMP) || { \
	    echo "  → the set-up did not finish; \`make setup\` goes on from there. Behind a mirror, name it:"; \
	    echo "    PIP_INDEX_URL=… UV_DEFAULT_INDEX=… make setup"; exit 1; }

repro: setup  ## every stage that is out of date, then the main numbers beside the paper's (ARGS=evaluate@loki: up to there)
	@$(INSIDE) ready=$$(date +%s); \
	fakevlm repro $(ARGS) || { echo; echo "The pipeline stopped. Cure what is said above; \`make repro\` then goes on from there."; exit 1; }; \
	end=$$(date +%s); \
	minutes() { echo "$$(($$1 / 60)) min $$(($$1 % 60)) s"; }; \
	echo; echo "Set-up $$(minutes $$((ready - $(START)))), pipeline $$(minutes $$((end - ready)))."

smoke: setup  ## the whole pipeline at a twentieth, in a folder of its own; same bytes as recorded? (ARGS=--record: record)
	@$(INSIDE) python tests/rehearse.py smoke $(ARGS)

test: setup  ## the whole test suite (ARGS="-k stage": part of it)
	@# A file's tests run in one process, which has one core: several threads each would only wait for one another.
	@# A worker that dies ends the run with its test named; a test that hangs fails at its limit (pyproject.toml).
	@$(INSIDE) export OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}; python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 $(ARGS)

bench: setup  ## ours against references, each in turns, as a table in benchmarks/ (ARGS="training ray": these parts)
	@$(INSIDE) python benchmarks/bench.py $(ARGS)

lab: setup  ## JupyterLab with the notebooks
	@$(INSIDE) JUPYTER_CONFIG_PATH="$(CURDIR)/notebooks" jupyter lab --ServerApp.root_dir=notebooks

lint: setup  ## check style, types, import directions, notebooks without outputs; scan for unsafe weights and secrets
	@$(INSIDE) ruff check . && ruff format --check . && lint-imports && nbstripout --keep-id --verify notebooks/*.ipynb && mypy && \
	python -m pytest -k scan tests/test_hygiene.py

lock: setup  ## renew requirements.lock from pyproject.toml
	@# for every Python from 3.11 and every platform; without index addresses, so that any mirror serves
	@$(INSIDE) uv pip compile --quiet --upgrade --universal --extra dev --python-version 3.11 --no-header pyproject.toml -o requirements.lock
	@git --no-pager diff --stat requirements.lock; echo "requirements.lock renewed; \`make test\` tells whether it holds."

world: setup  ## draw the miniature's raw corpora anew into embedded/ (a side branch: `make repro` does not)
	@$(INSIDE) fakevlm world $(ARGS)

base: setup  ## pretrain the miniature's base model anew into embedded/base (two hours; a side branch as well)
	@$(INSIDE) fakevlm base $(ARGS)

weights: setup  ## train the small EVA-02 and the satellite generators anew into embedded/ (minutes; a side branch too)
	@$(INSIDE) fakevlm weights $(ARGS)

rehearse: setup  ## profile `paper` from data to report on tiny models and a stand-in server (ARGS=released: that profile)
	@$(INSIDE) python tests/rehearse.py $(or $(ARGS),paper)
