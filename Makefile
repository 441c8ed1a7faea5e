# What a person types: `make run`, `make test`, `make lint`, `make proto`, `make docs`, `make clean`. Nothing needs to be set up
# before: each of them makes the environment that it needs, once. Works with the make that macOS has (GNU make 3.81).

# The first Python that is new enough and can make a venv; another one: make PYTHON=/path/to/python run
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)
# More arguments for pytest: make test ARGS="tests/machine -x"
ARGS ?=
# How many test processes; torch gets one thread in each.
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PROTO_VENV := .venv-proto
# The oldest generator that we support: what it makes runs on every newer runtime. It wants an older protobuf than the
# one that we run on, so it has an environment of its own, and it imports pkg_resources, which newer setuptools lack.
GRPCIO_TOOLS := grpcio-tools==1.71.2 "setuptools<81"
PROTOS = $(wildcard proto/m1/v1/*.proto)
# $(call generate,FOLDER): the stubs of all services into a folder.
generate = $(PROTO_VENV)/bin/python -m grpc_tools.protoc -I proto \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) $(PROTOS)

.PHONY: help run test check storm lint proto docs clean

help:
	@echo 'make run     install into .venv, start the daemon, train on handwritten digits and watch it'
	@echo 'make test    run all tests; some: make test ARGS="tests/machine -x"'
	@echo 'make check   lint, and the tests that start neither a daemon nor a training process'
	@echo 'make storm   random verbs and SIGKILLs against real training: make storm N=200 SEED=7 (N kills)'
	@echo 'make lint    style, types, the contract, the generated stubs, docs/cli.md'
	@echo 'make proto   generate shared/m1/v1 from proto/ again'
	@echo 'make docs    write docs/cli.md from the help of every command'
	@echo 'make clean   remove what these made; the home of the daemon stays'

run: $(VENV)/.for-run
	$(BIN)/m1ctl daemon start
	$(BIN)/m1ctl submit cifar --data digits --epochs 12 --set batch_size=64 --watch

test: $(VENV)/.for-test
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: lint
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not process" $(ARGS)

# N: how many kills; SEED: which storm. What was drawn is printed with how to repeat it.
N ?= 200
SEED ?= $(shell date +%s)
storm: $(VENV)/.for-test
	STORM_KILLS=$(N) STORM_SEED=$(SEED) OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests/test_storm.py

lint: $(VENV)/.for-test $(PROTO_VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --exclude '^tests/(train|fixtures)/' tests
	$(BIN)/mypy tests/train
	$(BIN)/buf lint proto
	@rm -rf build/stubs && mkdir -p build/stubs
	$(call generate,build/stubs)
	@diff -ru -x __init__.py -x __pycache__ shared/m1/v1 build/stubs/m1/v1 \
		|| { echo 'shared/m1/v1 is not what proto/ says: make proto'; exit 1; }
	@rm -rf build/stubs
	@$(BIN)/python -m m1ctl.reference | diff -u docs/cli.md - || { echo 'docs/cli.md is out of date: make docs'; exit 1; }

docs: $(VENV)/.for-run
	$(BIN)/python -m m1ctl.reference docs/cli.md

proto: $(PROTO_VENV)/.installed
	$(call generate,shared)

clean:
	rm -rf $(VENV) $(PROTO_VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'm1d needs Python 3.11 or newer: install it, or name it with make PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The marker files say what an environment holds; a change of what is asked for makes them old.
$(VENV)/.for-run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'installing m1d and what it needs into $(VENV) (torch is large: the first time takes some minutes)'
	$(PIP) --editable ".[daemon]"
	@touch $@

$(VENV)/.for-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'installing m1d, what it needs and what checks it into $(VENV) (the first time takes some minutes)'
	$(PIP) --editable ".[daemon,dev]"
	-$(PIP) --editable ".[frameworks]"
	@touch $(VENV)/.for-run $@

$(PROTO_VENV)/.installed: Makefile
	@test -n "$(PYTHON)" || { echo 'm1d needs Python 3.11 or newer: install it, or name it with make PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip --disable-pip-version-check install --quiet $(GRPCIO_TOOLS)
	@touch $@
