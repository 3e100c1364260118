# From General to Clinical. `make help` lists what there is; all that is needed is CPython >= 3.11 and make.

PROFILE ?= cpu
ONLY ?=
ARGS ?=
VENV := .venv
ifeq ($(OS),Windows_NT)
PY := $(VENV)/Scripts/python.exe
else
PY := $(VENV)/bin/python
endif
READY := $(VENV)/.ready
PIP := $(PY) -m pip install --disable-pip-version-check

# The first interpreter that is new enough; or name one: make course PYTHON=/path/to/python3.12
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

.PHONY: help setup course lab test lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@echo "make course   set up, execute every lesson, end with a table (PROFILE=smoke|cpu|gpu, ONLY=11)"
	@echo "make lab      set up, open JupyterLab on the first lesson, on this machine only (ARGS=--no-browser)"
	@echo "make test     set up, run all tests (ARGS='-k tent')"
	@echo "make setup    set up only: .venv with the pinned packages"
	@echo "make lock     write requirements.lock anew from pyproject.toml"
	@echo "make clean    remove .venv and build/; your runs/ stay"
	@echo "After the set-up, .venv/bin/seminar --help lists the course's own commands."

setup: $(READY)

# Done again only when the pins or the package's metadata change.
$(READY): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		echo "CPython 3.11 or newer is needed; found: $$(python3 --version 2>&1). Name one: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; fi
	@echo "set-up: packages into $(VENV) (about 2 GB; 2 to 4 minutes the first time)"
	@"$(PYTHON)" -m venv $(VENV) || { echo "python -m venv failed; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@quiet=-qq; [ -t 1 ] && quiet=; $(PIP) $$quiet --timeout 60 -r requirements.lock
	@$(PIP) -qq --no-deps --no-build-isolation -e .
	@touch $(READY)

course: $(READY)  ## every lesson
	@$(PY) -m seminar_utils.cli course --profile "$(PROFILE)" --only "$(ONLY)" $(ARGS)

lab: $(READY)  ## JupyterLab
	@$(PY) -m seminar_utils.cli lab $(ARGS)

test: $(READY)  ## all tests
	@$(PY) -m pytest $(ARGS)

lock:  ## new pins from pyproject.toml, resolved in an environment of their own
	@"$(PYTHON)" -c '$(NEW_ENOUGH)'
	rm -rf build/lock
	"$(PYTHON)" -m venv build/lock
	build/lock/bin/python -m pip install -qq --disable-pip-version-check "setuptools>=77" packaging
	build/lock/bin/python -m pip install -qq --disable-pip-version-check --no-build-isolation -e ".[test]"
	build/lock/bin/python .ci/lock.py requirements.lock

clean:
	rm -rf $(VENV) build
