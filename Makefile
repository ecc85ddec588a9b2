# Holdfast from a clone: only Python >= 3.11 and make are needed; everything else is installed into .venv.

.DEFAULT_GOAL := help
.PHONY: help demo run test test-all test-fast test-newest chaos bench bench-quick growth scale lock findings lint audit sbom up down pin-images
MAKEFLAGS += --no-print-directory
# Some images set it; then each of the many processes would compile its sources anew.
export PYTHONDONTWRITEBYTECODE :=

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for it in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$it $(NEW_ENOUGH) 2>/dev/null && echo $$it && break; done)
COMPOSE ?= $(shell command -v docker-compose || echo docker compose)
BIN := .venv/bin

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

demo: .venv/demo-installed  ## start the whole stack, send signed traffic, kill a worker, and check that nothing was lost or done twice
	@$(BIN)/python -m dev.demo

run: .venv/demo-installed  ## run the same stack in the foreground, to try things out; its data stays in var/run
	@$(BIN)/python -m dev.run

# Many tests wait for other processes, so more of them run at a time than there are processors.
PARALLEL := -n 4 --dist load --maxschedchunk 1
test: .venv/installed  ## run the tests, against a real store and real worker processes
	@$(BIN)/python -m pytest $(PARALLEL) $(TEST_OPTIONS)

test-all: .venv/installed  ## the same with every combination of brokers and databases and with chaos runs, as in CI
	@$(BIN)/python -m pytest $(PARALLEL) --all $(TEST_OPTIONS)

test-fast: .venv/installed  ## run the tests that need no worker processes and no Postgres, in less than 2 minutes
	@$(BIN)/python -m pytest $(PARALLEL) tests/unit tests/integration -m "not slow" -k "not postgres" $(TEST_OPTIONS)

# May fail: it shows early what a new release would break of the libraries whose private parts are used.
PRIVATE_TESTS := tests/integration/web/receiver tests/integration/inbox/test_recorder.py tests/unit/test_celeryconfig.py \
	tests/chaos/test_brokers.py tests/chaos/test_worker_settings.py tests/chaos/test_receiver_death.py
test-newest: .venv/installed  ## run the tests of private parts with the newest uvicorn, celery, kombu and redis; may fail
	@rm -rf var/newest && $(BIN)/python -m venv var/newest
	@sh dev/install.sh var/newest/bin/python requirements-dev.lock
	@var/newest/bin/python -m pip install -qq --disable-pip-version-check --upgrade uvicorn celery kombu redis
	@var/newest/bin/python -m pip list --disable-pip-version-check | grep -E '^(uvicorn|celery|kombu|redis) '
	-@var/newest/bin/python -m pytest -n 2 $(PRIVATE_TESTS)

EVENTS ?= 10000
KILLS ?= 100
BROKER ?= redis
DATABASE ?= sqlite
PAIRS ?= one
chaos: .venv/installed  ## kill every part under traffic, then check the results (EVENTS, KILLS, SEED, BROKER, DATABASE, PAIRS=all)
	@$(BIN)/python -m dev.chaos --events $(EVENTS) --kills $(KILLS) $(if $(SEED),--seed $(SEED)) \
		--broker $(BROKER) --database $(DATABASE) --pairs $(PAIRS)

PEERS := sh bench/peers/install.sh $(BIN)/python var/bench
bench: .venv/installed  ## compare speed with Fastify + BullMQ, DBOS and a hand-written receiver; needs Node, takes 20 minutes
	@$(PEERS) && $(BIN)/python -m bench && $(BIN)/python -m bench.waiting

bench-quick: .venv/installed  ## the same in 4 minutes, less exact; writes its report to var/bench
	@$(PEERS) && $(BIN)/python -m bench --quick --report var/bench && $(BIN)/python -m bench.waiting --quick --report var/bench

growth: .venv/installed  ## measure the cost of a growing record (docs/growth.md); a million events take half an hour (MOST)
	@$(BIN)/python -m bench.growth --most $(or $(MOST),1000000)

scale: .venv/installed  ## measure the gain of more processes and the limit of one store (docs/scaling.md)
	@$(BIN)/python -m bench.scale

findings:  ## show surprising behaviour of libraries, without Holdfast (findings/README.md)
	@status=0; for script in findings/*.sh; do echo "$$script"; sh $$script || { echo "it could not run, or differs from its head"; status=1; }; done; exit $$status

# All other locks are parts of the developers' lock, with the same versions.
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header
lock: .venv/installed  ## write the locks again after a change of pyproject.toml (UPGRADE=--upgrade for newer versions)
	@$(LOCK) pyproject.toml --extra dev $(UPGRADE) --output-file requirements-dev.lock
	@cp requirements-dev.lock requirements-demo.lock && $(LOCK) pyproject.toml --extra demo --output-file requirements-demo.lock
	@cp requirements-dev.lock requirements.lock && $(LOCK) pyproject.toml --output-file requirements.lock
	@cp requirements-dev.lock requirements-sbom.lock && $(LOCK) --group sbom --output-file requirements-sbom.lock

audit: .venv/installed  ## ask for known vulnerabilities of all locked packages; exit code 3: not all could be checked
	@$(BIN)/python -m dev.audit

sbom: .venv/installed  ## write the bill of materials of requirements.lock (CycloneDX, with hashes) to var/sbom.json
	@mkdir -p var
	@$(BIN)/python -m cyclonedx_py requirements --output-reproducible --output-format JSON --output-file var/sbom.json requirements.lock

lint: .venv/installed  ## check style, types and which packages may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

up:  ## start the production stack with Docker Compose and the secrets in .env
	@sh deploy/check-env.sh
	@$(COMPOSE) up --detach --build

pin-images:  ## pin the base images of the Dockerfile by the digests that their tags have now; needs docker buildx
	@sh deploy/pin-images.sh

down:  ## stop what `make up` started; its data stays
	@$(COMPOSE) down

# `make test` and the others install what is missing beside what `make demo` and `make run` need. A stamp is written last.
.venv/demo-installed: requirements-demo.lock .venv/bin/activate
	@$(call install,$<)
	@touch $@

.venv/installed: requirements-dev.lock .venv/bin/activate
	@$(call install,$<)
	@touch $@ .venv/demo-installed

# After an interrupted installation .venv/incomplete is left: half a package may be there, so everything is started over.
install = touch .venv/incomplete && sh dev/install.sh $(BIN)/python $(1) && rm .venv/incomplete

# What venv writes last.
.venv/bin/activate: $(wildcard .venv/incomplete)
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) $(NEW_ENOUGH) 2>/dev/null; then \
		echo "holdfast: Python 3.11 or newer is required; set PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "holdfast: creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv || { \
		echo "holdfast: the module venv does not work; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
