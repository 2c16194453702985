# make demo [GESTURE=four] [IMAGES=200]: set up and run the main job.   make test: set up and pass the tests.
GESTURE ?= four
IMAGES ?= 200
ROOT ?= artifacts
SHARDS ?= 1
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# pip would compile all packages, longer than the installation itself; Python compiles those that are imported, once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow check setup clean

demo: setup
	$(BIN)/pyflyte run workflows/train_gesture.py train_gesture --inputs-file workflows/configs/demo.yaml \
		--gesture $(GESTURE) --images $(IMAGES) --root $(ROOT) --shards $(SHARDS)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	sh containers/system-packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
