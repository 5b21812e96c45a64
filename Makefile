# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv/$(VERSION)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NODE_OPCUA := tests/peers/opcua
PACKAGES := edge drivers firmware_profiles hil_sim

.PHONY: demo test check format peers slow mosquitto bench soak clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/edge demo

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 2 --cov --cov-report= tests/unit tests/property
	@$(BIN)/python tests/coverage_pure.py
	@$(BIN)/python -m pytest -n 4 tests/contract tests/system

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# What a person would have the formatter do.
format: $(VENV)/.dev
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

# Against software that others wrote, each in an environment of its own; Mosquitto is the system's package.
PEERS := EDGE_PEER_PRINTRUN=$(CURDIR)/.venv/printrun/bin/python \
  EDGE_PEER_OCTOPRINT=$(CURDIR)/.venv/octoprint/bin/octoprint EDGE_PEER_NODE=$$(command -v node)

# On a busy host printcore joins its thread before it has started it.
ALONE := tests/peers/test_printcore.py

peers: $(VENV)/.dev .venv/printrun/.installed .venv/octoprint/.installed $(NODE_OPCUA)/node_modules/.installed mosquitto
	@$(PEERS) $(BIN)/python -m pytest -n 5 --dist loadscope tests/peers --ignore=$(ALONE)
	@$(PEERS) $(BIN)/python -m pytest $(ALONE)

# What takes too long for every commit: open channels to node-opcua, faults of links to simulators, long faults.
slow: $(VENV)/.dev $(NODE_OPCUA)/node_modules/.installed
	@$(PEERS) $(BIN)/python -m pytest -n 4 --dist loadscope -m slow tests

mosquitto:
	@PATH="$$PATH:/usr/sbin" command -v mosquitto >/dev/null || { \
	  test "$$(id -u)" = 0 || { echo "Mosquitto is missing; install it with: sudo apt-get install mosquitto" >&2; exit 1; }; \
	  echo "installing Mosquitto (once)"; \
	  apt-get install --yes --quiet --no-install-recommends mosquitto >/dev/null 2>&1 || \
	    { apt-get update --quiet >/dev/null && apt-get install --yes --quiet --no-install-recommends mosquitto >/dev/null; }; }

.venv/printrun/.installed: tests/peers/requirements-printrun.txt
	@$(PYTHON) -m venv .venv/printrun
	@.venv/printrun/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --requirement $<
	@touch $@

$(NODE_OPCUA)/node_modules/.installed: $(addprefix $(NODE_OPCUA)/,package.json package-lock.json install)
	@$(NODE_OPCUA)/install
	@touch $@

# kill -9 at random moments of prints; what was carried out must be the program. SEED=n repeats a run.
soak: $(VENV)/.dev
	@$(BIN)/python -m tests.soak --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

# BENCH=status, printers, octoprint, uplink, opcua or trust measures that part alone. What is missing is reported.
bench: $(VENV)/.dev
	@test "$(BENCH)" = status || test "$(BENCH)" = octoprint || test "$(BENCH)" = uplink || test "$(BENCH)" = trust || test "$(BENCH)" = opcua || \
	  $(MAKE) --silent --no-print-directory --keep-going .venv/printrun/.installed .venv/octoprint/.installed || true
	@test "$(BENCH)" != opcua -a "$(BENCH)" != "" || $(MAKE) --silent --no-print-directory $(NODE_OPCUA)/node_modules/.installed || true
	@$(PEERS) $(BIN)/python -m bench $(BENCH)

.venv/octoprint/.installed: tests/peers/requirements-octoprint.txt
	@$(PYTHON) -m venv .venv/octoprint
	@.venv/octoprint/bin/python -m pip --disable-pip-version-check --quiet install --requirement $<
	@touch $@

clean:
	rm -rf .venv $(NODE_OPCUA)/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "edge needs Python 3.11 or newer as '$(PYTHON)'; name another with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing; install it with: sudo apt install python3-venv" >&2; exit 1; }
	@echo "making an environment in $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP) install --constraint constraints.txt --editable '.[sim]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP) install --constraint constraints.txt --editable '.[sim,dev]'
	@touch $@ $(VENV)/.demo
