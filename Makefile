# The project's commands. `make` lists them.
#   ENV_FILE=config/environment/mine_local.sh make demo    sets the file's variables for every command
#   PYTHON=python3.12 TORCH_INDEX=<index> make setup       selects the Python and the package index of torch
SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
started := $(shell date +%s)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# without bytecode, every process would compile what it imports
unexport PYTHONDONTWRITEBYTECODE
# every recipe that runs a program starts with this
ENV := $(if $(ENV_FILE),set -a; source '$(if $(filter /%,$(ENV_FILE)),,./)$(ENV_FILE)' || exit 1; set +a;)
library := PYTHONPATH=workflow/scripts .venv/bin/python -m

.PHONY: help
help: ## list the targets
	@awk -F ':[^#]*## ' '/^[a-z_-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## create .venv from the lock file and install sox if missing
	@$(ENV) envs/setup.sh sox

.PHONY: _setup-tests
_setup-tests:
	@$(ENV) envs/setup.sh sox dot && envs/extra.sh jupyter trackers pesq networks

# in=docker or in=podman runs in the image, without this machine's .venv
inside := $(if $(in),containers/run.sh '$(in)' python -m )
setup-or-image := $(if $(in),,setup)

.PHONY: demo
demo: $(setup-or-image) ## set up, run config/experiments/music_dpcl.yml, print the report's path: [in=docker|podman]
	@$(ENV) $(inside)snakemake --profile local --config sweep=music_dpcl
	@seconds=$$(($$(date +%s) - $(started))); \
	echo "Finished in $$((seconds / 60)) min $$((seconds % 60)) s. Report: results/sweeps/music_dpcl/report.html"

.PHONY: experiment
experiment: $(setup-or-image) ## run a sweep: yml=config/experiments/NAME.yml [num_gpus=N] [num_jobs=N] [in=docker|podman]
	@$(ENV) test -n '$(yml)' || { echo "experiment: the file is missing; run: make experiment yml=config/experiments/music_dpcl.yml" >&2; exit 2; }; \
	set -- $(inside)snakemake --profile $(if $(filter-out 0,$(num_gpus)),local-gpu --resources gpu=$(num_gpus),local) \
		$(if $(num_jobs),--jobs $(num_jobs)) --config sweep='$(yml)'; \
	echo "$$*"; exec "$$@"

.PHONY: plan
plan: setup ## show what a sweep would run: [sweep=NAME|PATH] [set=key=value] [json=1]
	@$(ENV) $(library) separation.commands.plan $(if $(sweep),--sweep '$(sweep)') $(if $(set),--set '$(set)') $(if $(json),--json)

.PHONY: status
status: setup ## show the state of every point of a sweep: [sweep=NAME|PATH] [set=key=value] [json=1]
	@$(ENV) $(library) separation.commands.status $(if $(sweep),--sweep '$(sweep)') $(if $(set),--set '$(set)') $(if $(json),--json)

.PHONY: compare
compare: setup ## write one table and one report over several finished sweeps: sweeps=a,b
	@$(ENV) test -n '$(sweeps)' || { echo "compare: the sweeps are missing; run: make compare sweeps=music_dpcl,music_chimera" >&2; exit 2; }; \
	$(library) separation.commands.compare '$(sweeps)'

.PHONY: prune
prune: setup ## list results that no experiment file refers to: [remove=1 removes them] [caches=1 adds the arrays of all caches]
	@$(ENV) $(library) separation.commands.prune $(if $(remove),--remove) $(if $(caches),--caches)

.PHONY: check_environment
check_environment: ## check this machine and ENV_FILE, and explain what is missing: [json=1]
	@$(ENV) python=.venv/bin/python; [ -x $$python ] || python=python3; \
	PYTHONPATH=workflow/scripts $$python -m separation.machine.check_environment $(if $(json),--json)

.PHONY: separate
separate: setup ## separate your own audio: model=POINT input=FILE [output=FOLDER] [device=cpu]
	@$(ENV) test -n '$(model)' -a -n '$(input)' || { echo "separate: model or input is missing; run: make separate model=POINT input=song.wav" >&2; exit 2; }; \
	$(library) separation.commands.separate --model '$(model)' $(if $(output),--output '$(output)') $(if $(device),--device '$(device)') '$(input)'

.PHONY: export
export: setup ## write a trained point as a folder that nussl loads: model=POINT [output=FOLDER] [licence="CC-BY-4.0"]
	@$(ENV) test -n '$(model)' || { echo "export: the point is missing; run: make export model=POINT" >&2; exit 2; }; \
	$(library) separation.commands.export --model '$(model)' $(if $(output),--output '$(output)') $(if $(licence),--licence '$(licence)')

.PHONY: tensorboard
tensorboard: setup ## show training runs in the browser on port TENSORBOARD_HOST_PORT (8891)
	@$(ENV) logdir=$$($(library) separation.tracking.tensorboard_links) && exec tensorboard --logdir "$$logdir" --port "$${TENSORBOARD_HOST_PORT:-8891}"

.PHONY: sync
sync: setup ## send new data to trackers (comet.ml, ...): [points="ID ID"]
	@$(ENV) $(library) separation.tracking.sync $(points)

.PHONY: jupyter
jupyter: setup ## serve notebooks on port JUPYTER_HOST_PORT (8890): [gpus=0,1] [name=CONTAINER serves from a new container]
	@$(ENV) $(if $(name),,envs/extra.sh jupyter && )$(library) separation.commands.jupyter $(if $(gpus),--gpus '$(gpus)') $(if $(name),--name '$(name)')

# tests of one group share their fixtures in one process; tests/conftest.py sets the groups and the order
pytest := OMP_NUM_THREADS=1 python -m pytest --numprocesses $${TEST_PROCESSES:-2} --dist loadgroup --no-loadscope-reorder

.PHONY: test
test: _setup-tests lint ## set up, lint, and run the tests that run anywhere: [args="-k words"]
	@$(ENV) $(pytest) -m 'not slow' $(args)

.PHONY: test-slow
test-slow: _setup-tests ## run the tests that are long by nature: [args="-k words"]
	@$(ENV) $(pytest) -m slow $(args)

.PHONY: test-services
test-services: _setup-tests ## run the tests that start a real Slurm cluster and real containers: [args="-k words"]
	@$(ENV) $(pytest) tests/services $(args)

.PHONY: reference
reference: setup ## write docs/reference.md from the schemas
	@$(ENV) $(library) separation.commands.reference

.PHONY: lint
lint: setup ## check Python, Snakemake and shell files, and spelling
	@$(ENV) ruff check --quiet . && ruff format --quiet --check .
	@$(ENV) snakefmt --check Snakefile workflow/rules || { snakefmt --compact-diff Snakefile workflow/rules; exit 1; }
	@$(ENV) snakemake --lint
	@$(ENV) codespell
	@$(ENV) if command -v shellcheck >/dev/null; then shellcheck -x envs/*.sh containers/*.sh config/environment/default.sh .ci/run; fi

.PHONY: lock
lock: ## update the lock files from envs/*.in (needs uv): [upgrade=1]
	@$(ENV) command -v uv >/dev/null || { echo "lock: uv is missing; install it with 'pip install uv'" >&2; exit 1; }; \
	set -e; new=$$(mktemp envs/.lock.XXXXXX); trap 'rm -f "$$new"' EXIT; \
	cp envs/requirements.lock "$$new"; \
	uv pip compile envs/requirements.in --override envs/overrides.txt --universal --fork-strategy fewest --python-version 3.11 \
		--no-annotate --no-header --quiet --output-file "$$new" $(if $(upgrade),--upgrade) >/dev/null; \
	{ echo '# Generated by `make lock` from requirements.in and overrides.txt; do not edit.'; grep -v "'never'" "$$new"; } >"$$new.done"; \
	mv "$$new.done" envs/requirements.lock; echo "envs/requirements.lock: $$(grep -c == envs/requirements.lock) packages"; \
	for extra in jupyter trackers pesq; do \
		uv pip compile envs/$$extra.in --constraint envs/requirements.lock --universal --fork-strategy fewest --python-version 3.11 \
			--no-annotate --no-header --quiet --output-file "$$new" $(if $(upgrade),--upgrade) >/dev/null; \
		{ echo "# Generated by \`make lock\` from $$extra.in: the packages that requirements.lock lacks; do not edit."; \
			awk 'NR == FNR {have[$$1]; next} /==/ && !($$1 in have)' envs/requirements.lock "$$new"; } >envs/$$extra.lock; \
		: >"$$new"; echo "envs/$$extra.lock: $$(grep -c == envs/$$extra.lock) packages"; \
	done; \
	{ echo "# Generated by \`make lock\` from networks.in, without dependencies; do not edit."; grep == envs/networks.in; } >envs/networks.lock; \
	uv pip compile envs/submit.in --constraint envs/requirements.lock --universal --fork-strategy fewest --python-version 3.11 \
		--no-annotate --no-header --quiet --output-file "$$new" >/dev/null; \
	{ echo "# Generated by \`make lock\` from submit.in: the packages of requirements.lock for planning and submitting; do not edit."; cat "$$new"; } >envs/submit.lock; \
	echo "envs/submit.lock: $$(grep -c == envs/submit.lock) packages"; \
	python3 envs/conda.py

.PHONY: images
images: ## build the container image (docs/containers.md): [with=docker|podman|apptainer] [variant=cpu|cuda]
	@$(ENV) $(if $(variant),VARIANT='$(variant)' )containers/build.sh $(with)

.PHONY: clean
clean: ## remove .venv and tool caches; keep results, private files and Snakemake's records
	rm -rf .venv .pytest_cache .ruff_cache
	find workflow tests -type d -name __pycache__ -prune -exec rm -rf {} +
