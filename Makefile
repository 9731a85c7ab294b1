# On a fresh machine with Python and make alone, every target first makes its own .venv.
# VENV=/some/where uses another one (the CI does); PYTHON=python3.12 makes it with another Python.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := raftlog broker kombu_transport
CODE := $(PACKAGES) $(wildcard tests examples deploy)
# Ends a run that hangs in spite of the limit on every single test.
TEST_LIMIT ?= 40m
SEEDS ?= 1-500
LEVEL ?= cluster
KILLS ?= 50
# make mutants MUTANTS="reads vote_before_fsync" shows some; JOBS=2 two at a time.
MUTANTS ?=
JOBS ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test check lint types imports fast-tests sim mutants bench bench-failover bench-depth bench-catch-up test-containers format clean

help:
	@echo "make demo             three nodes and a Celery worker on this machine, and a node killed"
	@echo "make check            format, lint, types, imports and the fast tests: about a minute"
	@echo "make test             the whole test suite"
	@echo "make sim SEEDS=1-500  the whole cluster simulated under faults, seed after seed"
	@echo "make mutants          known bugs, put in one at a time: who catches each, how soon"
	@echo "make bench            throughput and latency on this machine"
	@echo "make bench-failover   how long publishing stands still when leaders are killed"
	@echo "make bench-depth      a million messages in one queue: memory, disk, restart, drain"
	@echo "make bench-catch-up   a node that lacks 300,000 messages catches up under traffic"
	@echo "make test-containers  a cluster in containers; needs a container engine"
	@echo "make format           put the code into its one format"
	@echo "make clean            remove what was built and cached; the environment stays"

venv: $(STAMP)

# Made again when what is to be installed has changed.
$(STAMP): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/raftmq demo

check: lint types imports fast-tests

lint: $(STAMP)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports --config setup.cfg

fast-tests: $(STAMP)
	$(BIN)/python -m pytest -q -m "not slow and not containers" tests/raftlog tests/broker tests/mutants

test: $(STAMP)
	timeout --foreground --kill-after=30s $(TEST_LIMIT) $(BIN)/python -m pytest -q -m "not containers" --durations=15 tests

sim: $(STAMP)
	$(BIN)/python -m tests.simulation run $(SEEDS) --level $(LEVEL) $(if $(HOURS),--hours $(HOURS))

mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(MUTANTS) --jobs $(JOBS)

bench: $(STAMP)
	$(BIN)/python -m tests.bench

bench-failover: $(STAMP)
	$(BIN)/python -m tests.bench --only failover,rolling --rounds 0 --shards 9 --kills $(KILLS)

bench-depth: $(STAMP)
	$(BIN)/python -m tests.bench.depth
bench-catch-up: $(STAMP)
	$(BIN)/python -m tests.bench.catch_up

test-containers: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" bash deploy/test_containers.sh

format: $(STAMP)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
