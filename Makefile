# make demo [GESTURE=four] [IMAGES=200]: set up and run the main job.   make test: set up and pass the tests.
GESTURE ?= four
IMAGES ?= 200
ROOT ?= artifacts
SHARDS ?= 1
PYTHON ?= python3.11
# Of `make register DOMAIN=... VERSION=...`: the images are $(REGISTRY)/hand1000-cpu:$(VERSION) and -gpu.
PROJECT ?= hand1000
DOMAIN ?= development
REGISTRY ?= ghcr.io/hand1000
VENV := .venv
BIN := $(VENV)/bin

# pip would compile all packages, longer than the installation itself; Python compiles those that are imported, once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow check register setup clean

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

# Activates the launch plans that workflows/schedules.yaml calls active. The control plane is that of Flyte's own
# configuration: FLYTE_PLATFORM_URL, or the file that FLYTECTL_CONFIG names.
register: setup
	@test -n "$(VERSION)" || { echo "make register: VERSION is missing; name the images' tag, VERSION=..."; exit 2; }
	$(BIN)/pyflyte register --project $(PROJECT) --domain $(DOMAIN) --version $(VERSION) --copy none \
		--image cpu=$(REGISTRY)/hand1000-cpu:$(VERSION) --image gpu=$(REGISTRY)/hand1000-gpu:$(VERSION) workflows

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock infra/tools.lock pyproject.toml
	sh containers/system-packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --requirement infra/tools.lock
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
