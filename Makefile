# make demo       train, export, quantize and profile a small forecaster; writes build/demo/report.html
# make test       every test but those that take minutes;  make test-fast  without those over a second or two
# make test-slow  the tests that take minutes;  both together are every test
# make test-arithmetic  the tests that compute, under several instruction sets and numbers of threads: an hour,
#                 PYTEST="-m 'not slow and not long'" a quarter; after changes of numerics, not part of CI
# make test-clients  every kind of artifact in engines of other makers (OpenVINO, tract), in an environment of
#                 their own, .venv-clients, from tests/clients/requirements.txt; bundles in Node and WebAssembly, with
#                 the packages of tests/clients/node in .node-clients, which needs Node and npm; bundles in C, which
#                 needs a C compiler; files of opset 18 in ONNX Runtime 1.17, in .venv-oldest; five minutes
# make test-clients-all  what takes long, or tools that few have: bundles in a browser, on an emulated ARM64, by other
#                 compilers, in C with ONNX Runtime 1.17; says which tools it lacks
# make fuzz       1,000 tied graphs drawn at random and rolled, 200 language models that decode with a cache, then files
#                 damaged at random, ten minutes long;
#                 make fuzz FUZZ="--graphs 0 --seconds 60 --seed 1", or FUZZ="--replay 1.23" for one file again,
#                 FUZZ="--replay graph.1.23" or FUZZ="--replay model.1.23" for one graph
# make lint       ruff, mypy, import-linter, and how large rooms and functions are
# make bench      the figures of docs/results.md;  make bench-gpu  those of a GPU, on a machine that has one;
#                 make bench-peers  the same models through other toolchains;  make bench-decode  decoding with a
#                 cache, llama.cpp beside it;  make bench-clients  the same model in every client of a bundle
# make clean      remove what the others made, .venv too
#
# Each sets up .venv first. It needs Python 3.11 or later and an index of Python packages, no more.

# Bytecode is kept whatever the environment says: tests start thousands of processes, and each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLIENTS := .venv-clients
CLIENTS_STAMP := $(CLIENTS)/.installed
NODE_CLIENTS := .node-clients
NODE_STAMP := $(NODE_CLIENTS)/.installed
OLDEST := .venv-oldest
OLDEST_STAMP := $(OLDEST)/.installed
ALL := .all-clients
ALL_STAMP := $(ALL)/.installed

.PHONY: demo environments test test-fast test-slow test-arithmetic test-clients \
	test-clients-all fuzz lint bench bench-gpu bench-peers bench-decode bench-clients clean
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

# Install scripts are left out: that of onnxruntime-node fetches libraries of CUDA, which no test needs.
$(NODE_STAMP): tests/clients/node/package.json
	@command -v npm > /dev/null || { echo "error: make test-clients needs Node 20 or later and npm"; exit 1; }
	@mkdir -p $(NODE_CLIENTS) && cp tests/clients/node/package.json $(NODE_CLIENTS)/package.json
	cd $(NODE_CLIENTS) && npm install --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

# ONNX Runtime 1.17 has wheels for Python 3.8 to 3.12.
$(OLDEST_STAMP): tests/clients/requirements-oldest.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13) and "error: make test-clients needs Python 3.11 or 3.12, for ONNX Runtime 1.17; try make clean test-clients PYTHON=python3.12")'
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --requirement tests/clients/requirements-oldest.txt
	@touch $@

$(ALL_STAMP): tests/clients/all/parts.py | $(STAMP)
	PYTHONPATH=. $(BIN)/python -m tests.clients.all.parts $(ALL)
	@touch $@

environments: $(STAMP) $(CLIENTS_STAMP) $(NODE_STAMP) $(OLDEST_STAMP)

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

PYTEST_CLIENTS := CLIENTS_PYTHON=$(CLIENTS)/bin/python NODE_CLIENTS=$(NODE_CLIENTS) OLDEST_PYTHON=$(OLDEST)/bin/python \
	ALL_CLIENTS=$(ALL) OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet

test-clients: $(STAMP) $(CLIENTS_STAMP) $(NODE_STAMP) $(OLDEST_STAMP)
	$(PYTEST_CLIENTS) --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile --ignore=tests/clients/all tests/clients

test-clients-all: $(STAMP) $(NODE_STAMP) $(ALL_STAMP)
	$(PYTEST_CLIENTS) tests/clients/all

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
	@missed=0; for program in $$(grep -l __main__ $(filter-out benchmarks/gpu/% benchmarks/peers/% benchmarks/decode/% benchmarks/clients/%,$(wildcard benchmarks/*/*.py))); do \
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

# Half an hour; what test-clients and test-clients-all need.
bench-clients: $(STAMP) $(NODE_STAMP) $(ALL_STAMP)
	PYTHONPATH=. $(BIN)/python -m benchmarks.clients.every_client --output benchmarks/results/clients

clean:
	rm -rf $(VENV) $(CLIENTS) $(NODE_CLIENTS) $(OLDEST) $(ALL) build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find loopedge cli calibration tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +
