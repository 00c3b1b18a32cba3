# make demo and make test need nothing but Python on the machine: they make .venv, install, and run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := build/demo
DEMO_MODEL ?= fpn
PHOTOS ?=

# A photograph that cannot be used makes infer exit 1; where the others went is still said.
define DEMO_OUTPUT
--model $(DEMO)/$(DEMO_MODEL).onnx --output $(DEMO)/keypoints.jsonl --draw $(DEMO)/drawn || status=$$?; \
	  echo; \
	  echo "drawn pictures:  $(CURDIR)/$(DEMO)/drawn"; \
	  echo "keypoints:       $(CURDIR)/$(DEMO)/keypoints.jsonl  (one line an image)"; \
	  echo "model:           $(CURDIR)/$(DEMO)/$(DEMO_MODEL).onnx"; \
	  exit $$status
endef

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lbkit needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

.PHONY: install
install: $(READY) ## Make .venv with everything in it

.PHONY: demo
demo: $(READY) ## Export the shipped checkpoint, check it against PyTorch, infer and draw (PHOTOS=folder for your own)
	rm -rf $(DEMO)
	$(BIN)/lbkit export --model $(DEMO_MODEL) --output $(DEMO)/$(DEMO_MODEL).onnx
ifeq ($(PHOTOS),)
	$(BIN)/lbkit figures $(DEMO)/figures --count 12 --seed 7
	@status=0; $(BIN)/lbkit infer $(DEMO)/figures --boxes coco:$(DEMO)/figures/annotations.json $(DEMO_OUTPUT)
else
	@status=0; $(BIN)/lbkit infer "$(patsubst ~/%,$(HOME)/%,$(PHOTOS))" $(DEMO_OUTPUT)
endif

.PHONY: test
test: $(READY) ## Run the tests (LBKIT_COCO=root adds those on real photographs)
	$(BIN)/python -m pytest

.PHONY: train-smoke
train-smoke: $(READY) ## Train on eight rendered people: learns, survives kills, runs under two processes
	$(BIN)/python -m pytest -m train_smoke --durations=5

.PHONY: check
check: $(READY) ## Lint, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: wheel-test
wheel-test: $(READY) ## Build the wheel and use it, without PyTorch, in a second environment
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  "$$(ls build/wheel/*.whl)[cpu]" pytest
	cd build/wheel && venv/bin/python -m pytest --rootdir=$(CURDIR)/tests/torch_free -c $(CURDIR)/pyproject.toml \
	  --import-mode=importlib $(CURDIR)/tests/torch_free

.PHONY: clean
clean: ## Remove what was built, but not the environment
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
