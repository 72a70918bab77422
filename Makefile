# Everything a newcomer needs: `make demo`, `make test`. Each target installs what it uses into .venv.
PYTHON ?= python3
BIN := .venv/bin
MAPLIBRE := src/terradelta/report/viewer/page/maplibre-gl
MAPLIBRE_VERSION := 6.17.0
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# The pinned torch has a CPU build; see constraints.txt.

.PHONY: demo test test-slow check format bench weights vendor docs clean hooks

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

weights: .venv/installed-dev   ## train the embedded model again, about 15 minutes
	$(BIN)/python recipes/drawn_scenes.py

vendor:                        ## fetch MapLibre GL JS for the map viewer again, through npm
	rm -rf $(MAPLIBRE) && mkdir -p $(MAPLIBRE)
	npm pack --silent --pack-destination $(MAPLIBRE) maplibre-gl@$(MAPLIBRE_VERSION)
	tar -xzf $(MAPLIBRE)/maplibre-gl-$(MAPLIBRE_VERSION).tgz -C $(MAPLIBRE) --strip-components 1 package/LICENSE.txt
	tar -xzf $(MAPLIBRE)/maplibre-gl-$(MAPLIBRE_VERSION).tgz -C $(MAPLIBRE) --strip-components 2 \
	  package/dist/maplibre-gl.mjs package/dist/maplibre-gl-worker.mjs package/dist/maplibre-gl.css
	sed -i '/^\/\/# sourceMappingURL=/d' $(MAPLIBRE)/*.mjs
	rm $(MAPLIBRE)/*.tgz

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
