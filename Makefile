# Everything a user or a build server runs. `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(STAMP) ## make .venv from the pinned dependencies
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock torch setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[all,dev]'
	@touch $@

demo: install ## erase weapons from the shipped model and show it (minutes, build/demo/)
	$(BIN)/trce demo

up: install ## run the whole service on this machine until Ctrl-C
	$(BIN)/trce up --serve-base

# Most take one core each, and share nothing. Those that start the whole service are timed, and want
# the machine for themselves.
test: install ## run all tests, those over real processes too
	$(BIN)/python -m pytest -m "not stack" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m stack

stack-test: install ## build the images, run them with docker compose, kill, scale and upgrade (build/stack/)
	$(BIN)/python -m deploy.stack_test

CHAOS ?=
chaos: install ## kill, freeze, cut and fill for an hour, and count what breaks (build/chaos/; CHAOS="--jobs 500 --minutes 5")
	$(BIN)/python -m tests.chaos $(CHAOS)

SOAK ?=
soak: install ## an hour of load, and the slope of every process's memory (build/soak/; SOAK="--minutes 10")
	$(BIN)/python -m tests.soak $(SOAK)

check: install ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-trce: install ## both stages of TRCE against the procedure as published
	$(BIN)/python -m benchmarks.trce

.PHONY: bench-stages
bench-stages: install ## what each stage of TRCE adds, on test prompts (build/bench/stages.jsonl)
	$(BIN)/python -m trainer.evaluation.stages_table benchmarks/stages.yaml --base models/emoji \
	  --rows build/bench/stages.jsonl --cache build/bench/stages --split test

bench-families: install ## time and memory of stage 1 at the sizes of SD 1.5 and SDXL
	$(BIN)/python -m benchmarks.families

bench-eval: install ## evaluation in batches against one picture at a time
	$(BIN)/python -m benchmarks.evaluation

bench-serving: install ## the service against its limit and the usual server (25 minutes, build/bench/serving.json)
	$(BIN)/python -m benchmarks.serving

fuzz: install ## 10,000 made-up requests to a service of its own (build/fuzz/)
	$(BIN)/python -m benchmarks.fuzz

bench-connections: install ## ten thousand clients at once: each answered, nothing lost
	$(BIN)/python -m benchmarks.connections

bench-capacity: install ## what a generation costs Redis
	$(BIN)/python -m benchmarks.capacity

.PHONY: bench-gate
bench-gate: install ## what checking a model adds to loading it (build/bench/gate.json)
	$(BIN)/python -m benchmarks.gate

bench-page: install ## what each address of the page costs the service (build/bench/page.json)
	$(BIN)/python -m benchmarks.page

screenshots: install ## take the pictures in docs/pictures anew (needs Chromium)
	PYTHONPATH=tests $(BIN)/python deploy/screenshots.py

lock: install ## resolve the dependencies anew into requirements.lock
	$(BIN)/python deploy/lock.py

clean: ## remove what can be made again
	rm -rf .venv build

.PHONY: help install demo up test stack-test chaos soak check bench-trce bench-families bench-eval bench-serving fuzz bench-connections bench-capacity bench-gate bench-page screenshots lock clean
.DEFAULT_GOAL := help
