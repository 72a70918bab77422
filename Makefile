# Everything a newcomer needs: `make demo`, `make test`. Each target installs what it uses into .venv.
PYTHON ?= python3
BIN := .venv/bin
MAPLIBRE := src/terradelta/viewer/page/maplibre-gl
MAPLIBRE_VERSION := 6.17.0
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
SHARED ?= ../shared/data
# The pinned torch has a CPU build; see constraints.txt.

.PHONY: demo test test-slow fuzz kill mutants same browser qgis check format bench weights real-pairs vendor docs clean hooks

demo: .venv/installed          ## draw a scene, run the embedded model, show what changed
	$(BIN)/terradelta demo -o demo --overwrite

test: .venv/installed-dev browser ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --durations 20

# Pages are tested in Debian's Chromium; where it cannot be had, those tests skip and say so.
browser:
	@test -x /usr/bin/chromium || ! test -x /usr/bin/apt-get || ! test "$$(id -u)" = 0 || \
	  (apt-get update -q && apt-get install -y -q --no-install-recommends chromium) >/dev/null || \
	  echo "chromium could not be installed: tests of pages are skipped" >&2

test-slow: .venv/installed-dev qgis ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

fuzz: .venv/installed-dev      ## damaged files and hostile options for every verb, half an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --healthy --runs 4000

kill: .venv/installed-dev      ## a map of 4,000 x 4,000 px killed 100 times, a quarter of an hour
	$(BIN)/python -m pytest -m slow tests/mapping/test_kills.py

mutants: .venv/installed-dev   ## change the code in small ways and count what the tests notice, an hour
	nice $(BIN)/python benchmarks/mutants.py

same: .venv/installed-dev      ## whether two commits write the same files: make same BEFORE=... AFTER=...
	$(BIN)/python benchmarks/same_outputs.py $(BEFORE) $(AFTER)

qgis:                          ## Debian's QGIS, which some slow tests ask; they skip without it
	@if /usr/bin/python3 -c "import qgis.core" 2>/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends python3-qgis; \
	else echo "python3-qgis is not installed and apt-get is not at hand: its tests will skip"; fi

check: .venv/installed-dev     ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev       ## speed ratios, measured side by side on this machine
	$(BIN)/python benchmarks/bench.py

weights: .venv/installed-dev   ## train the recipe's model on the folders in SHARED, three hours: runs/default/model
	$(BIN)/python recipes/default/train.py --shared $(SHARED)

real-pairs: .venv/installed-dev ## the default model and its rivals on real pairs of SHARED
	$(BIN)/python benchmarks/real/table.py --shared $(SHARED)

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
	$(PIP) -e ".[openvino]"
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) -e ".[dev]"
	touch $@
