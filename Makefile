# Two commands do everything: `make demo` and `make test`. Paths are relative, so a checkout may lie under any path.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Written last by an installation: what is older than the pins, or than what it compiles, is installed again.
INSTALLED := $(VENV)/.installed
NATIVE := src/triscale/kernels/native
COMPILED := $(wildcard $(addprefix $(NATIVE)/,CMakeLists.txt *.cpp *.h inference/*.cpp inference/*.h))

.DEFAULT_GOAL := help
.PHONY: help demo install test test-slow lint docs peers clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /: /'

install: $(INSTALLED)  ## make .venv and install everything into it

$(INSTALLED): pyproject.toml constraints.txt $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Triscale needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(INSTALLED)

demo: install  ## find, train and test a network on real images, in under two minutes
	$(RUN) -m triscale demo

# Nearly every test keeps one core busy, whatever threads it has: two processes, or four where there are more cores.
TESTS = OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile

test: install  ## all tests but the slow tier
	$(TESTS) -m "not slow"

test-slow: install  ## the slow tier
	$(TESTS) -m slow --durations 30

lint: install  ## ruff, mypy, import direction
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -c 'from importlinter.cli import lint_imports; raise SystemExit(lint_imports())'

docs: install  ## the documentation site, in site/
	$(VENV)/bin/zensical build --clean --strict

peers: install  ## timm and torchvision, the oracles of some tests
	$(RUN) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[peers]"

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache site
