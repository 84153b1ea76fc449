# Everything that is done with this project by hand or by CI. `make help` lists it.
# Set-up needs Python 3.11 or later and a network; the rest of what it needs comes from the pins, hash by hash.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test bench bench-scoring bench-training bench-warm-start bench-large-log chaos fuzz soak format pins clean

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
# What is installed is compiled then: `import torch` alone takes three times as long from its source.
export UV_COMPILE_BYTECODE := 1
PINS := pins.txt pins-torch.txt pins-uv.txt

PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3)
TORCH_BACKEND ?=
# The one place that says which torch: `make pins TORCH_VERSION=…` changes it.
TORCH_VERSION ?= $(shell sed -n 's/^torch==\([^ ;]*\).*/\1/p' pins-torch.txt)
UV_VERSION ?= $(shell sed -n 's/^uv==\([^ ;]*\).*/\1/p' pins-uv.txt)
BACKEND := $(or $(TORCH_BACKEND),default)
# One stamp per way to set up, so that changing the way sets up again.
STAMP := $(VENV)/.setup-$(BACKEND)$(if $(PYTHON),-$(subst /,_,$(PYTHON)))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	echo
	echo '  PYTHON=/path/to/python3   make the environment with this Python'
	echo '  TORCH_BACKEND=cpu         torch from its own index of builds (cpu, cu126, auto, …), see uv --torch-backend'
	echo '  JOBS=1                    processes of `make test`, each with a broker of its own; 2 by default (3 overload two cores)'
	echo '  NEXTCLICK_BOOTSTRAP=host:port   demo and tests use this Kafka cluster instead of starting one'

setup: $(STAMP) ## make or update the environment in .venv (the other targets do it by themselves)

$(STAMP): pyproject.toml $(PINS)
	@is_usable='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
	version='import sys; print(sys.version)'
	# Never removed from here: somebody may be using it.
	if [ -n '$(PYTHON)' ] && [ -x $(BIN)/python ] &&
	   [ "$$('$(PYTHON)' -c "$$version")" != "$$($(BIN)/python -c "$$version")" ]; then
	    echo "$(VENV) was made with $$($(BIN)/python --version), not with $(PYTHON): 'make clean' removes it" >&2
	    exit 1
	fi
	if [ ! -x $(BIN)/python ]; then
	    found=
	    for candidate in $(CANDIDATES); do
	        if "$$candidate" -c "$$is_usable" 2>/dev/null; then found=$$candidate; break; fi
	    done
	    if [ -z "$$found" ]; then
	        echo 'nextclick needs Python 3.11 or later, with its venv module (looked for: $(CANDIDATES)).' >&2
	        echo 'Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3' >&2
	        exit 1
	    fi
	    echo "making $(VENV) with $$("$$found" --version)"
	    "$$found" -m venv $(VENV)
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r pins-uv.txt
	# Another build of the same torch version counts as installed already: the old one has to go first.
	if [ "$$(cat $(VENV)/.torch-backend 2>/dev/null || echo default)" != '$(BACKEND)' ]; then
	    $(UV) uninstall --python $(BIN)/python -r pins-torch.txt
	fi
	echo '$(BACKEND)' > $(VENV)/.torch-backend
	rm -f $(VENV)/.setup-*
	$(if $(TORCH_BACKEND),$(install_torch_backend),$(install_torch_pinned))
	$(UV) install --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

define install_torch_pinned
	$(UV) install --python $(BIN)/python --require-hashes -r pins.txt -r pins-torch.txt
endef

# These builds have other hashes and a local version suffix (2.x.y+cpu): versions are pinned, hashes cannot be.
define install_torch_backend
	$(UV) install --python $(BIN)/python --require-hashes -r pins.txt
	sed -e '/^ *--hash/d' -e 's/ *\\$$//' pins-torch.txt > $(VENV)/torch-versions.txt
	$(UV) install --python $(BIN)/python --torch-backend $(TORCH_BACKEND) \
	    -c $(VENV)/torch-versions.txt torch==$(TORCH_VERSION)
endef

demo: setup ## the whole system on a simulated shop, in the terminal (KEEP=1: until Ctrl-C)
	@$(BIN)/nextclick demo $(if $(KEEP),--keep)

# In the order of their folders: broker tests, which mostly wait, come early, and those that compute fill the end.
test: setup ## format check, lint, types, and all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n $(or $(JOBS),2) --dist loadfile --no-loadscope-reorder

bench: setup ## measure the worker: one table and one JSON line
	@$(BIN)/python -m tests.bench.run

bench-scoring: setup ## the k best of a catalogue, by eight-bit codes and by all products (ITEMS="10000 100000")
	@$(BIN)/python -m tests.bench.scoring $(if $(ITEMS),--items $(ITEMS))

bench-training: setup ## train the logs beside the project, three seeds each: accuracy and speed (LOGS="…", SEEDS=3, DEVICE=cpu or cuda)
	@$(BIN)/python -m tests.bench.training $(if $(DEVICE),--device $(DEVICE)) $(if $(LOGS),--logs $(LOGS)) $(if $(SEEDS),--seeds $(SEEDS))

bench-warm-start: setup ## a warm start against full retraining, on logs cut in time (LOGS="…")
	@$(BIN)/python -m tests.bench.warm_start $(if $(LOGS),--logs $(LOGS))

bench-large-log: setup ## read and sessionise a synthetic log of CLICKS=10000000 clicks
	@$(BIN)/python -m tests.bench.large_log --clicks $(or $(CLICKS),10000000)

chaos: setup ## kill workers and brokers, compare with a quiet run (ROUNDS=200, SEED=1, GUARANTEE=at_least_once, PROTOCOL=consumer)
	@$(BIN)/python -m tests.chaos.run --rounds $(or $(ROUNDS),200) --seed $(or $(SEED),1) \
	    --guarantee $(or $(GUARANTEE),exactly_once) $(if $(PROTOCOL),--group-protocol $(PROTOCOL))

fuzz: setup ## a million hostile records (RECORDS=…, SEED=…), 100,000 through a broker
	@$(BIN)/python -m tests.fuzz.run $(if $(RECORDS),--records $(RECORDS)) $(if $(SEED),--seed $(SEED))

soak: setup ## half of the peak rate for MINUTES=30 (GUARANTEE=at_least_once)
	@$(BIN)/python -m tests.soak.run --minutes $(or $(MINUTES),30) $(if $(GUARANTEE),--guarantee $(GUARANTEE))

format: setup ## put the code into its format, fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
    --quiet $(if $(UPGRADE),--upgrade)

pins: setup ## write the pins anew (UPGRADE=1: newest versions; TORCH_VERSION=…, UV_VERSION=…)
	$(COMPILE) pyproject.toml --all-extras --group dev --override <(echo 'torch ; python_version < "3"') -o pins.txt
	echo 'torch==$(TORCH_VERSION)' | $(COMPILE) - -c pins.txt -o pins-torch.txt
	echo 'uv==$(UV_VERSION)' | $(COMPILE) - -o pins-uv.txt
	$(BIN)/python -m deploy.kafka_jars
	if grep -n '://' $(PINS) deploy/kafka-jars.txt; then echo 'pins must not record addresses' >&2; exit 1; fi

clean: ## remove the environment, caches and what was built
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache dist build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
