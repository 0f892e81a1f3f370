# Two commands to start with: `make demo` and `make test`. Both make .venv first; PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST := 127.0.0.1
PORT ?= 4200
API := http://$(HOST):$(PORT)/api
LOGS := data/logs
HEALTHY = $(BIN)/python -c "import urllib.request as u; u.urlopen('$(API)/health')" 2>/dev/null
# What a shell starts in the background ignores Ctrl-C's signal, which is what Prefect's processes turn a request to end into: they would live on.
ENDABLE = nohup $(BIN)/python -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])'
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help install demo test suite lint bench-teacher bench-train bench-gpus bench-dpo bench-generate bench-sample bench-memory bench-attribution bench-faults bench-signals up down clean
.DEFAULT_GOAL := help

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/installed  ## make .venv with the exact versions of constraints.txt

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: install  ## fetch the student and run the demo profile: under ten minutes on two cores
	$(BIN)/socratune run demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install  ## ruff, mypy and every test that needs neither a GPU nor a key
	$(MAKE) --jobs 2 --no-print-directory lint suite

suite: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

bench-teacher: install  ## our teacher caller beside the rivals, about 40 minutes (BENCH="--quick --only faults" for less)
	$(BIN)/python -m tests.bench.teacher $(BENCH)

bench-train: install  ## our SFT beside TRL's on a GPU (BENCH=--cpu shows that it runs without one)
	$(BIN)/python -m tests.bench.engine train $(BENCH)

bench-gpus: install  ## our SFT on one, two and four GPUs
	$(BIN)/python -m tests.bench.engine all --only sft_cot,sft_cot_2gpu,sft_cot_4gpu --sides ours $(BENCH)

bench-dpo: install  ## the same for preference pairs
	$(BIN)/python -m tests.bench.engine dpo $(BENCH)

bench-generate: install  ## the same for generation
	$(BIN)/python -m tests.bench.engine generate $(BENCH)

bench-sample: install  ## eight samples of 300 questions beside a model.generate loop (BENCH="--cpu --student FOLDER" for a real student)
	$(BIN)/python -m tests.bench.engine sample $(BENCH)

bench-memory: install  ## what training takes of a GPU's memory where nothing is compiled or layers are recomputed, beside the fit oracle's count
	$(BIN)/python -m tests.bench.engine memory $(BENCH)

bench-attribution: install  ## whether attributions of SmolLM2's verdicts add up (BENCH=--sweep walks the path as well)
	$(BIN)/python -m tests.bench.attribution $(BENCH)

bench-faults: install  ## 2,000 questions to a teacher that gets everything wrong at random: nothing lost, paid twice or let slip
	$(BIN)/python -m tests.bench.faults $(BENCH)

bench-signals: install  ## 100 signals at random moments of runs with either Prefect server: everything gone in seconds, nothing paid twice
	$(BIN)/python -m tests.bench.signals $(BENCH)

up: install  ## start a Prefect server (or use the one that runs), a work pool and a worker; deploy; say what to run
	mkdir -p $(LOGS)
	$(HEALTHY) || { PREFECT_SERVER_UI_API_URL=$(API) $(ENDABLE) $(BIN)/prefect server start --host $(HOST) --port $(PORT) >$(LOGS)/server.log 2>&1 & echo $$! >$(LOGS)/server.pid; }
	until $(HEALTHY); do sleep 1; done
	export PREFECT_API_URL=$(API); set -e; \
	$(BIN)/prefect work-pool create local --type process --overwrite; \
	$(BIN)/prefect work-queue create training --pool local --limit 1 || $(BIN)/prefect work-queue set-concurrency-limit training 1 --pool local; \
	$(BIN)/prefect automation inspect dead-runs >/dev/null 2>&1 || $(BIN)/prefect automation create --from-file deployments/automations/dead-runs.yaml; \
	$(BIN)/prefect --no-prompt deploy --all; \
	$(BIN)/prefect automation inspect loop-accepted >/dev/null 2>&1 || { \
	id=$$($(BIN)/prefect deployment inspect evaluate/evaluate --output json | $(BIN)/python -c "import json, sys; print(json.load(sys.stdin)['id'])"); \
	sed "s/EVALUATE/$$id/" deployments/automations/loop-accepted.yaml >$(LOGS)/loop-accepted.yaml; \
	$(BIN)/prefect automation create --from-file $(LOGS)/loop-accepted.yaml; }; \
	ps -p "$$(cat $(LOGS)/worker.pid 2>/dev/null)" -o args= 2>/dev/null | grep -q 'prefect worker start' || { \
	$(ENDABLE) $(BIN)/prefect worker start --pool local >$(LOGS)/worker.log 2>&1 & echo $$! >$(LOGS)/worker.pid; }
	@echo "The UI:  http://$(HOST):$(PORT)"
	@echo "Run:     PREFECT_API_URL=$(API) $(BIN)/prefect deployment run 'full-pipeline/demo' --watch"

down:  ## stop what `make up` started, the worker first: it tells the server
	@for each in worker server; do \
	[ -f $(LOGS)/$$each.pid ] || continue; \
	pid=$$(cat $(LOGS)/$$each.pid); kill $$pid 2>/dev/null; \
	for second in $$(seq 15); do kill -0 $$pid 2>/dev/null || break; sleep 1; done; \
	kill -9 $$pid 2>/dev/null; rm $(LOGS)/$$each.pid; echo "stopped the $$each"; \
	done

clean:  ## forget caches of the tools, not the artifacts
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
