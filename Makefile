# Everything a newcomer needs: `make demo`, `make test`. Each target installs what it uses into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# The pinned torch has a CPU build; see constraints.txt.

.PHONY: demo test test-slow check format bench weights docs clean hooks browser

demo: .venv/installed          ## draw a scene, run the embedded model, show what changed
	$(BIN)/terradelta demo -o demo --overwrite

test: .venv/installed-dev browser ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow"

# Pages are tested in Debian's Chromium; where it cannot be had, those tests skip and say so.
browser:
	@test -x /usr/bin/chromium || ! test -x /usr/bin/apt-get || ! test "$$(id -u)" = 0 || \
	  (apt-get update -q && apt-get install -y -q --no-install-recommends chromium) >/dev/null || \
	  echo "chromium could not be installed: tests of pages are skipped" >&2

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

weights: .venv/installed-dev   ## train the embedded model again, about 15 minutes
	$(BIN)/python recipes/drawn_scenes.py

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
