# Each target sets up .venv by itself: `make serve` on a fresh machine is enough.
PYTHON ?= python3
CONFIG ?= configs/service.toml
PYTEST_ARGS ?=
BENCH_ARGS ?=
KILLS_ARGS ?= --kills 2000
SITES_ARGS ?=
LINES_ARGS ?=
SOAK_ARGS ?= --minutes 60

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
SITES := build/kill-sites

.PHONY: serve test lint bench faults lines kills sites soak clean

serve: $(INSTALLED)
	exec $(BIN)/gomp serve --config $(CONFIG)

# The kernels are compiled first, so that no test waits for it; pytest comes last, so that its closing line is the last one printed.
# Files keep their order: those with a few tests that take long do not come last, when nothing is left to run beside them.
test: lint
	$(BIN)/gomp kernels
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Processes are killed everywhere: hours.
faults: lines kills sites

# As plain Python: a P is killed before each line of each kind of operation, and each step of the repair is left out in turn, which is noticed.
lines: $(READY)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest --numprocesses 2 --run-slow $(LINES_ARGS) tests/faults

# Ps are killed at random under load; the seed that is printed repeats the plan of the kills.
kills: $(READY)
	$(BIN)/gomp kernels
	$(BIN)/python -m tests.faults.harness $(KILLS_ARGS)

# Ps, attached processes and the coordinator are killed before each write of shared memory that they come to. A run that was ended goes on where it
# was; when sources have changed it begins anew.
sites: $(SITES)/.ready
	GOMP_KILL_SITES=$(CURDIR)/$(SITES) $(BIN)/python -m tests.faults.sites $(SITES_ARGS)
	GOMP_KILL_SITES=$(CURDIR)/$(SITES) $(BIN)/python -m tests.faults.sites --guests $(SITES_ARGS)
	GOMP_KILL_SITES=$(CURDIR)/$(SITES) $(BIN)/python -m tests.faults.coordinator_sites $(SITES_ARGS)

$(SITES)/.ready: $(READY) $(shell find gomp -name '*.py')
	rm -rf $(SITES)
	mkdir -p $(SITES)
	GOMP_KILL_SITES=$(CURDIR)/$(SITES) $(BIN)/gomp kernels
	touch $@

# A service under mixed load, with kills, changes and processes that come and go: nothing of it grows.
soak: $(READY)
	$(BIN)/gomp kernels
	$(BIN)/python -m tests.soak.soak $(SOAK_ARGS)

bench: $(READY)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.reference

# What serving needs, and what developing needs beside it.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "gomp needs Python 3.11 or newer: make PYTHON=python3.11 (or later)" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(READY): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
