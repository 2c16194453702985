GESTURE ?= four
IMAGES ?= 200
ROOT ?= artifacts
SHARDS ?= 1
# The interpreter of `make setup`; without it, the first of python3.11, python3.12 and python3 that suits.
PYTHON ?=
# `make register` uses the images $(REGISTRY)/hand1000-cpu:$(VERSION) and -gpu.
PROJECT ?= hand1000
DOMAIN ?= development
REGISTRY ?= ghcr.io/hand1000
VENV := .venv
BIN := $(VENV)/bin
# An environment of another Python is replaced.
ifneq ($(shell PYTHON="$(PYTHON)" sh tooling/setup.sh --check $(VENV)),)
$(shell rm -f $(VENV)/.ready)
endif

# Compiling every package takes longer than the installation itself; Python compiles what it imports, once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo story test test-slow bench soak fuzz faults check check-prose check-secrets audit infra-check \
	format docs register setup lock clean

help:  ## Print this list.
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: setup  ## Train, evaluate and register one gesture on rendered hands: GESTURE=four IMAGES=200 ROOT=artifacts SHARDS=1.
	$(BIN)/pyflyte run workflows/train_gesture.py train_gesture --inputs-file workflows/configs/demo.yaml \
		--gesture $(GESTURE) --images $(IMAGES) --root $(ROOT) --shards $(SHARDS)

story: setup  ## Tell how models are reviewed, on a real MLflow server with PostgreSQL and S3.
	sh tooling/test-packages.sh
	$(BIN)/python -m tests.stories.review_story

test: setup  ## Run the tests.
	sh tooling/test-packages.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: setup  ## Run the tests at Stable Diffusion's size: minutes, and 16 GB of memory.
	$(BIN)/python -m pytest -m slow

fuzz: setup  ## Give 10,000 malformed inputs to everything that reads from outside, and print a table.
	$(BIN)/python -m tests.fuzzing.run

faults: setup  ## Kill, starve and disconnect every stage, check what the rerun leaves, and write docs/reliability.md.
	sh tooling/test-packages.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults || test $$? -eq 5  # 5: no test has the mark.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults

bench: setup  ## Measure every stage beside its peers, and write docs/performance.md: ONLY=distances PEERS=folder ITEMS=10000.
	sh tooling/test-packages.sh
	$(BIN)/python -m benchmarks.bench $(addprefix --only ,$(ONLY)) $(if $(PEERS),--peers $(PEERS)) \
		$(if $(BEFORE),--before $(BEFORE)) $(if $(ITEMS),--items $(ITEMS))

soak: setup  ## Retrain 50 times in a row with faults, and measure what grows: docs/soak.md, about 25 minutes.
	$(BIN)/python -m benchmarks.soak

check: setup check-prose check-secrets  ## Run every static check: format, lint, types, layers, dependencies, spelling and secrets.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .

check-secrets: setup  ## Look for keys and passwords in every file; .secrets.baseline lists what was checked and is none.
	mkdir -p build && cp .secrets.baseline build/secrets.json
	git ls-files -z --cached --others --exclude-standard >build/secrets.list
	@# The first call fails if only the line of a known entry moved, which it corrects in the copy; the second one decides.
	xargs -0 $(BIN)/detect-secrets-hook --baseline build/secrets.json <build/secrets.list >/dev/null || \
		xargs -0 $(BIN)/detect-secrets-hook --baseline build/secrets.json <build/secrets.list

audit: .venv-audit/.ready  ## Look for known vulnerabilities in the lock files, write their bills of materials: STRICT=1.
	.venv-audit/bin/python tooling/audit.py build/sbom $(if $(STRICT),--strict)

infra-check: setup .venv-checkov/.ready  ## Check infra/ and containers/ with Checkov.
	$(BIN)/python -m tests.support.render_infra build/infra
	.venv-checkov/bin/checkov --config-file infra/checkov.yaml

check-prose: setup  ## Check the spelling and the project's vocabulary in every file that a person reads.
	git ls-files -z --cached --others --exclude-standard | xargs -0 $(BIN)/codespell -D - -D tooling/banned-words.txt
	! git grep --untracked -nIiP -f tooling/banned-phrases.txt -- ':!tooling/banned-*' ':!tests/infra/test_tooling.py' ':!tests/registry/registered-*'

format: setup  ## Sort imports, apply safe fixes and format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## Build the documentation into build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Flyte's own configuration chooses the control plane: FLYTE_PLATFORM_URL, or the file that FLYTECTL_CONFIG names.
register: setup  ## Register every workflow and activate the active schedules: DOMAIN=... VERSION=... REGISTRY=...
	@test -n "$(VERSION)" || { echo "make register: VERSION is missing; name the tag of the images, VERSION=..."; exit 2; }
	$(BIN)/pyflyte register --project $(PROJECT) --domain $(DOMAIN) --version $(VERSION) --copy none \
		--image cpu=$(REGISTRY)/hand1000-cpu:$(VERSION) --image gpu=$(REGISTRY)/hand1000-gpu:$(VERSION) workflows

setup: $(VENV)/.ready  ## Create the environment .venv from the pinned packages: PYTHON=python3.12.

$(VENV)/.ready: requirements.lock infra/tools.lock pyproject.toml tooling/setup.sh
	PYTHON="$(PYTHON)" EDITABLE=. sh tooling/setup.sh $(VENV) requirements.lock infra/tools.lock
	touch $@

# Tools whose own dependencies conflict with the project's.
.venv-%/.ready: tooling/%.lock tooling/setup.sh
	PYTHON="$(PYTHON)" sh tooling/setup.sh .venv-$* $<
	touch $@

lock:  ## Renew the lock files after a change of pyproject.toml, with uv: UPGRADE=1 takes the newest versions.
	uv run --no-project --python $(firstword $(PYTHON) 3.11) tooling/lock.py $(if $(UPGRADE),--upgrade)

clean:  ## Remove the environment and everything that was built.
	rm -rf $(VENV) .venv-* build *.egg-info
