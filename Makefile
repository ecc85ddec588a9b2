# Holdfast from a clone: only Python >= 3.11 and make are needed; everything else is installed into .venv.

.DEFAULT_GOAL := help
.PHONY: help demo run test test-newest chaos bench bench-quick growth scale profile lint up down
MAKEFLAGS += --no-print-directory

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for it in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$it $(NEW_ENOUGH) 2>/dev/null && echo $$it && break; done)
COMPOSE ?= $(shell command -v docker-compose || echo docker compose)
BIN := .venv/bin

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

demo: .venv/installed  ## start the whole stack, send signed traffic, kill a worker, and check that nothing was lost or done twice
	@$(BIN)/python -m dev.demo

run: .venv/installed  ## run the same stack in the foreground, to try things out; its data stays in var/run
	@$(BIN)/python -m dev.run

test: .venv/installed  ## run all tests, against a real store and real worker processes
	@$(BIN)/python -m pytest -n 4 --dist worksteal

# May fail: it shows early what a new release would break of the libraries whose private parts are used.
PRIVATE_TESTS := tests/integration/web/receiver tests/integration/inbox/test_recorder.py tests/unit/test_celeryconfig.py \
	tests/chaos/test_brokers.py tests/chaos/test_worker_settings.py tests/chaos/test_receiver_death.py
test-newest: .venv/installed  ## run the tests of private parts with the newest uvicorn, celery, kombu and redis; may fail
	@rm -rf var/newest && $(BIN)/python -m venv var/newest
	@var/newest/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
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

bench: .venv/installed  ## compare speed with Fastify + BullMQ, DBOS and a hand-written receiver; needs wrk and Node, takes 15 minutes
	@$(BIN)/python -m bench

bench-quick: .venv/installed  ## the same in 2 minutes, less exact; writes its report to var/bench
	@$(BIN)/python -m bench --quick --report var/bench

growth: .venv/installed  ## measure the cost of a growing record (docs/growth.md); a million events take half an hour (MOST)
	@$(BIN)/python -m bench.growth --most $(or $(MOST),1000000)

scale: .venv/installed  ## measure the gain of more processes and the limit of one store (docs/scaling.md)
	@$(BIN)/python -m bench.scale

profile: .venv/installed  ## write flame graphs of a receiver and a worker under load to var/profile
	@$(BIN)/python -m bench.profile

lint: .venv/installed  ## check style, types and which packages may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

up:  ## start the production stack with Docker Compose and the secrets in .env
	@sh deploy/check-env.sh
	@$(COMPOSE) up --detach --build

down:  ## stop what `make up` started; its data stays
	@$(COMPOSE) down

# Recreated when the lock changes. The stamp is written last, so an interrupted installation is repeated.
.venv/installed: requirements-dev.lock
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) $(NEW_ENOUGH) 2>/dev/null; then \
		echo "holdfast: Python 3.11 or newer is required; set PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "holdfast: creating .venv with $$($(PYTHON) --version) and installing the locked packages; this takes a minute"
	@$(PYTHON) -m venv --clear .venv || { \
		echo "holdfast: the module venv does not work; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
