# Everything a newcomer needs: `make demo`, `make test`. Each target installs what it uses into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
SHARED ?= ../shared/data
# The pinned torch has a CPU build; see constraints.txt.

.PHONY: demo test test-slow check format bench weights real-pairs docs clean hooks

demo: .venv/installed          ## draw a scene, run the embedded model, show what changed
	$(BIN)/terradelta demo -o demo --overwrite

test: .venv/installed-dev      ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/installed-dev ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

check: .venv/installed-dev     ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev       ## speed ratios, measured side by side on this machine
	$(BIN)/python benchmarks/bench.py

weights: .venv/installed-dev   ## train the default model again on the folders in SHARED, two hours
	$(BIN)/python recipes/default/train.py --shared $(SHARED)

real-pairs: .venv/installed-dev ## the default model and its rivals on real pairs of SHARED
	$(BIN)/python benchmarks/real/table.py --shared $(SHARED)

docs: .venv/installed-dev      ## the documentation as a site in site/
	$(BIN)/zensical build

hooks:                         ## run `make check` before each commit
	git config core.hooksPath .githooks

clean:
	rm -rf .venv site demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) -e ".[dev]"
	touch $@
