# make demo       train, export, quantize and profile a small forecaster; writes build/demo/report.html
# make test       every test but those that take minutes;  make test-fast  without those over a second or two
# make test-slow  the tests that take minutes;  both together are every test
# make test-arithmetic  the tests that compute, under several instruction sets and numbers of threads: an hour,
#                 PYTEST="-m 'not slow and not long'" a quarter; after changes of numerics, not part of CI
# make test-clients  every kind of artifact in engines of other makers (OpenVINO, tract), in an environment of
#                 their own, .venv-clients, from tests/clients/requirements.txt; two minutes
# make fuzz       1,000 tied graphs drawn at random and rolled, 200 language models that decode with a cache, then files
#                 damaged at random, ten minutes long;
#                 make fuzz FUZZ="--graphs 0 --seconds 60 --seed 1", or FUZZ="--replay 1.23" for one file again,
#                 FUZZ="--replay graph.1.23" or FUZZ="--replay model.1.23" for one graph
# make lint       ruff, mypy, import-linter, and how large rooms and functions are
# make bench      the figures of docs/results.md;  make bench-gpu  those of a GPU, on a machine that has one;
#                 make bench-peers  the same models through other toolchains;  make bench-decode  decoding with a
#                 cache, llama.cpp beside it
# make clean      remove what the others made, .venv too
#
# Each sets up .venv first. It needs Python 3.11 or later and an index of Python packages, no more.

PYTHON ?= python3
WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLIENTS := .venv-clients
CLIENTS_STAMP := $(CLIENTS)/.installed

.PHONY: demo environments test test-fast test-slow test-arithmetic test-clients fuzz lint bench bench-gpu bench-peers bench-decode clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: loopedge needs Python 3.11 or later; try make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'pip>=25.1' # --group is new there
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train]' --group dev
	@touch $@

# Without wheels for this machine the installation fails, and says so: these tests are not skipped.
$(CLIENTS_STAMP): tests/clients/requirements.txt
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --requirement tests/clients/requirements.txt
	@touch $@

environments: $(STAMP) $(CLIENTS_STAMP)

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo/run.sh

# One thread each: several workers share the cores. tests/conftest.py begins with the files that take longest.
PYTEST_ALL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile \
	--no-loadscope-reorder

test: $(STAMP)
	$(PYTEST_ALL) -m 'not long'

test-fast: $(STAMP)
	$(PYTEST_ALL) -m 'not slow and not long'

test-slow: $(STAMP)
	$(PYTEST_ALL) -m long

test-arithmetic: $(STAMP)
	WORKERS=$(WORKERS) $(BIN)/python tests/arithmetic.py $(PYTEST)

test-clients: $(STAMP) $(CLIENTS_STAMP)
	CLIENTS_PYTHON=$(CLIENTS)/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet tests/clients

# Failing files are kept in build/fuzz. FUZZ takes options.
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/house.py

bench: $(STAMP)
	@missed=0; for program in $$(grep -l __main__ $(filter-out benchmarks/gpu/% benchmarks/peers/% benchmarks/decode/%,$(wildcard benchmarks/*/*.py))); do \
		echo "$$program"; PYTHONPATH=. $(BIN)/python "$$program" || missed=$$?; \
	done; exit $$missed

bench-gpu: $(STAMP)
	PYTHONPATH=. $(BIN)/python benchmarks/gpu/forms.py --output benchmarks/results/gpu

# An hour and 15 GB of disk the first time. PEERS takes options: make bench-peers PEERS="--refresh loopedge"
bench-peers: $(STAMP)
	PYTHONPATH=. $(BIN)/python -m benchmarks.peers.bench $(PEERS)

# A quarter of an hour; the first time ten minutes more, and a compiler: it builds llama.cpp. DECODE takes options.
bench-decode: $(STAMP)
	PYTHONPATH=. $(BIN)/python -m benchmarks.decode.chains --output benchmarks/results/decode
	PYTHONPATH=. $(BIN)/python -m benchmarks.decode.twins --output benchmarks/results/decode
	PYTHONPATH=. $(BIN)/python -m benchmarks.decode.bench --output benchmarks/results/decode $(DECODE)

clean:
	rm -rf $(VENV) $(CLIENTS) build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find loopedge cli calibration tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +
