# Two commands to start with: `make demo` and `make test`. Both make .venv first; PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 4200
DEPLOYMENT ?= full-pipeline/demo
LOGS := data/logs
STANDING = $(BIN)/python -m tasks.gateways.standing_server --port $(PORT)
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help install demo test suite lint bench-teacher bench-train bench-gpus bench-dpo bench-generate bench-sample bench-memory bench-cpu bench-attribution bench-faults bench-start bench-signals up registered run down clean
.DEFAULT_GOAL := help

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/installed  ## make .venv with the exact versions of constraints.txt

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: install  ## fetch the student and run the demo profile: 6 to 25 minutes on two cores, by how fast they multiply
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

bench-cpu: install  ## our SFT, drafts and log-probabilities on a CPU in float32 beside TRL and transformers
	$(BIN)/python -m tests.bench.cpu $(BENCH)

bench-attribution: install  ## whether attributions of SmolLM2's verdicts add up (BENCH=--sweep walks the path as well)
	$(BIN)/python -m tests.bench.attribution $(BENCH)

bench-faults: install  ## 2,000 questions to a teacher that gets everything wrong at random: nothing lost, paid twice or let slip
	$(BIN)/python -m tests.bench.faults $(BENCH)

bench-start: install  ## imports beside Prefect's own, seconds to the first words and of a run that finds everything stored (BENCH=--demo for the demo)
	$(BIN)/python -m tests.bench.start $(BENCH)

bench-signals: install  ## 100 signals at random moments of runs with either Prefect server: everything gone in seconds, nothing paid twice
	$(BIN)/python -m tests.bench.signals $(BENCH)

up: install  ## start a Prefect server behind a secret (or use the one that runs), a work pool and a worker; deploy; say what to run
	@mkdir -p $(LOGS)
	@$(STANDING) server
	@$(STANDING) run $(MAKE) --no-print-directory registered >$(LOGS)/up.log 2>&1 || { tail -n 20 $(LOGS)/up.log; echo "above is the end of $(LOGS)/up.log"; exit 1; } >&2
	@$(STANDING) worker
	@echo "The UI:  http://127.0.0.1:$(PORT)  (its password: cat data/.prefect-secret)"
	@echo "Run:     make run$(if $(filter-out 4200,$(PORT)), PORT=$(PORT))  (full-pipeline/demo; DEPLOYMENT=self-guided/demo for another)"

# What `make up` tells its server, whose address and secret stand in the environment.
registered:
	$(BIN)/prefect work-pool create local --type process --overwrite
	$(BIN)/prefect work-queue create training --pool local --limit 1 || $(BIN)/prefect work-queue set-concurrency-limit training 1 --pool local
	$(BIN)/prefect automation inspect dead-runs >/dev/null 2>&1 || $(BIN)/prefect automation create --from-file deployments/automations/dead-runs.yaml
	$(BIN)/prefect --no-prompt deploy --all
	$(BIN)/prefect automation inspect loop-accepted >/dev/null 2>&1 || { \
	id=$$($(BIN)/prefect deployment inspect evaluate/evaluate --output json | $(BIN)/python -c "import json, sys; print(json.load(sys.stdin)['id'])"); \
	sed "s/EVALUATE/$$id/" deployments/automations/loop-accepted.yaml >$(LOGS)/loop-accepted.yaml; \
	$(BIN)/prefect automation create --from-file $(LOGS)/loop-accepted.yaml; }

run:  ## run a deployment on the server of `make up` and watch it (DEPLOYMENT=full-pipeline/demo PARAM='overrides={"recipe.seed": 1}')
	@$(STANDING) run $(BIN)/prefect deployment run '$(DEPLOYMENT)' $(if $(PARAM),--param '$(PARAM)') --watch

down:  ## stop what `make up` started
	@$(STANDING) stop

clean:  ## forget caches of the tools, not the artifacts
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
