# make demo   environment, sample parts, a short training with the stock script, heatmaps
# make test   environment and all tests
# make test-isa  the tests that compare numbers, under the instruction sets below the processor's own
# make lint   ruff and mypy
# make docs   the documentation as a site in build/site, warnings are errors
# make notebooks  run all notebooks and keep their outputs
# make reliability  every bad input and fault several times, docs/reliability.md from what happened
# make clean  everything that the other three made
# Another interpreter or place: make test PYTHON=python3.12 VENV=/path/to/env

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.anomalib-vmpfd

.PHONY: demo test test-isa lint docs notebooks reliability clean env

env: $(STAMP)

$(STAMP): pyproject.toml $(wildcard startup/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/anomalib-vmpfd sample --root datasets/sample
	$(BIN)/anomalib train --config configs/quickstart.yaml
	@echo "Heatmaps of the test images: results/VmpfdAd/SampleParts/washer/latest/images"
	@echo "Checkpoint: results/VmpfdAd/SampleParts/washer/latest/weights/lightning/model.ckpt"

test: $(STAMP)
	# a process a core, of one thread each: two processes of two threads on two cores slow each other down tenfold
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-isa: $(STAMP)
	$(BIN)/python tools/release/instruction_sets.py

lint: $(STAMP)
	# a cached verdict knows nothing of a module that has moved since
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(STAMP)
	$(BIN)/python tools/release/run_notebooks.py notebooks/*.ipynb

reliability: $(STAMP)
	$(BIN)/python tools/release/compatibility.py
	$(BIN)/python tools/release/reliability_report.py

clean:
	rm -rf $(VENV) build dist datasets/sample results/VmpfdAd/SampleParts .mypy_cache .pytest_cache .ruff_cache
