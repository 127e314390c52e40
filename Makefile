# `make` lists the targets. Everything that they build is in .venv, target and tests/peers/node/node_modules.

BIN := .venv/bin
CARGO := cargo
CC := cc
PYTHON := $(firstword $(foreach each,python3.13 python3.12 python3.11 python3,$(shell \
	$(each) -c 'import sys, ensurepip, venv; sys.version_info >= (3, 11) and print("$(each)")' 2>/dev/null)))

export VIRTUAL_ENV := $(CURDIR)/.venv
export PYO3_PYTHON := $(CURDIR)/.venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport CONDA_PREFIX PYTHONHOME

# What the extension and the environment are made from: a change in one of them, and only that, builds them again.
BUILT := .venv/.built
SOURCES := Cargo.toml Cargo.lock pyproject.toml native/Cargo.toml $(shell find native/src -name '*.rs')

LIBMODBUS := target/peers/libmodbus_server target/peers/libmodbus_values
MODBUS_LOAD := target/peers/modbus_load
ASYNC_OPCUA_SERVER := target/peers/opcua/release/opcua-server
NODE_MODULES := tests/peers/node/node_modules/.package-lock.json

NO_PYTHON := Headrace needs Python 3.11 or newer with its venv module: install your system's `python3` and `python3-venv` packages
NO_CARGO := Headrace needs a Rust toolchain (1.88 or newer): install it from https://rustup.rs, or your system's `cargo` package
NO_CC := Headrace needs a C compiler for its Rust core: install your system's `gcc` package (and `libc6-dev` on Debian)

NO_NIGHTLY := Fuzzing needs the nightly Rust toolchain: rustup toolchain install nightly --profile minimal
NO_CARGO_FUZZ := Fuzzing needs cargo-fuzz: cargo install cargo-fuzz

# For `make fuzz` and `make soak-core`: seconds for each target, the targets, mutated blocks and their seed.
SECONDS := 60
TARGETS := block_decode block_sealed json modbus_plan filter_push opcua_publish opcua_structure
MUTATIONS := 1000000
REQUESTS := 1000000
SEED := 1
MINUTES := 30
RENEWALS := 1000
RUNS := 20
NODES := 100000
# What the tests throw dice for, and how often `make explore` throws anew.
DICE := 1
ROUNDS := 10

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help tools setup demo bench bench-resolver fleet test check check-python check-rust test-python test-rust explore fuzz fuzz-seeds soak soak-core soak-modbus soak-opcua soak-opcua-kills soak-outbox soak-kills soak-delivery soak-outage soak-lines browse-large peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools:
	$(if $(PYTHON),,$(error $(NO_PYTHON)))
	$(if $(shell $(CARGO) --version 2>/dev/null | awk '{ split($$2, v, "."); if (v[1] > 1 || v[2] >= 88) print "ok" }'),,$(error $(NO_CARGO)))
	$(if $(shell command -v $(CC) 2>/dev/null),,$(error $(NO_CC)))
	@:

setup: tools $(BUILT) ## build .venv with every extra and the Rust core (again only where something changed)

$(BUILT): $(SOURCES) | tools
	@echo "==> Python environment in .venv, with $(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet 'maturin>=1.9.4,<2'
	@echo "==> Python packages, and the Rust core in release mode (a few minutes the first time)"
	@PATH="$(VIRTUAL_ENV)/bin:$$PATH" python -m pip install --quiet --no-build-isolation --editable '.[all,dev]'
	@touch $@

demo: setup ## the whole chain on this machine, each reading checked; ARGS="--seconds 20 --outage 5s --json"
	@$(BIN)/headrace demo $(ARGS)

bench: setup peers $(MODBUS_LOAD) ## one JSON line for each benchmark
	@$(BIN)/python -m benchmarks --core --store --drain $(ARGS)

bench-resolver: setup ## 100,000 identifiers from a simulated resolver, cold and warm, beside a collecting loop (docs/identifiers.md)
	@nice $(BIN)/python -m benchmarks.resolving $(ARGS)

fleet: setup peers ## how many agents a broker and a data center bear; ARGS="--agents 5,10,20 --devices 4" (docs/scale.md)
	@$(BIN)/python -m benchmarks.fleet $(ARGS)

test: setup peers check test-rust test-python ## everything that must hold: what CI runs

check: check-python check-rust ## style, types and documents of both languages; no test is run

check-python: setup
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo "==> mypy"
	@$(BIN)/mypy --strict --no-error-summary
	@echo "==> stubtest: agent/_native.pyi against the extension"
	@$(BIN)/python -m mypy.stubtest --concise --allowlist tests/stubtest-allow.txt agent._native
	@echo "==> import arrows"
	@$(BIN)/python -m pytest -q tests/test_arrows.py

check-rust: setup
	@echo "==> rustfmt, clippy, rustdoc"
	@$(CARGO) fmt --check
	@$(CARGO) clippy --quiet --locked --all-targets -- -D warnings
	@$(CARGO) clippy --quiet --locked --all-targets --features python -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --locked --no-deps --features python
	@echo "==> the fuzz targets compile (to run them takes nightly: make fuzz)"
	@$(CARGO) clippy --quiet --locked --manifest-path native/fuzz/Cargo.toml --no-default-features --target-dir target/fuzz-check -- -D warnings

test-rust: setup
	@PROPTEST_RNG_SEED=$(DICE) $(CARGO) test --quiet --locked

# Most tests wait for another program most of the time: three at once are done in a third of it.
test-python: setup peers
	@HEADRACE_DICE=$(DICE) $(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

explore: setup peers ## the tests with other dice, ROUNDS=10 times; ARGS names some of them. CI throws the same ones (DICE=1) each time
	@for dice in $$(od -An -N$$((4 * $(ROUNDS))) -tu4 -v /dev/urandom); do \
		echo "==> DICE=$$dice"; $(MAKE) --silent --no-print-directory test-rust test-python DICE=$$dice || exit; \
	done

fuzz: ## fuzz each target of native/fuzz for SECONDS=60 on one core (docs/fuzzing.md)
	$(if $(shell $(CARGO) +nightly --version 2>/dev/null),,$(error $(NO_NIGHTLY)))
	$(if $(shell $(CARGO) fuzz --version 2>/dev/null),,$(error $(NO_CARGO_FUZZ)))
	@nice -n 19 native/fuzz/run.sh $(SECONDS) $(TARGETS)

fuzz-seeds: setup ## write the seeds of the fuzz targets anew, from the golden vectors
	@PYTHONPATH=. $(BIN)/python native/fuzz/seeds.py

soak-core: ## MUTATIONS=1000000 mutated blocks through the core, from SEED=1
	@HEADRACE_SOAK=$(MUTATIONS) HEADRACE_SEED=$(SEED) nice $(CARGO) test --quiet --locked --release --test core soak -- --nocapture

soak-opcua-kills: setup peers ## an agent of a node-opcua server, killed three times in each of RUNS=20 runs (docs/opcua.md)
	@nice $(BIN)/python -m tests.opcua_kills $(RUNS) $(SEED)

soak-opcua: setup peers ## faults of OPC UA servers for MINUTES=30, from SEED=1 (docs/opcua.md)
	@nice $(BIN)/python -m tests.opcua_soak $(MINUTES) $(SEED)
	@HEADRACE_RENEWALS=$(RENEWALS) nice $(BIN)/python -m pytest -q -s --timeout 0 tests/opcua_renewals.py

browse-large: setup peers ## `headrace browse` on NODES=100000 analog items (docs/opcua-security.md)
	@HEADRACE_BROWSE=$(NODES) nice $(BIN)/python -m pytest -q -s --timeout 0 tests/test_browse.py -k tag_list

soak-modbus: setup ## REQUESTS=1000000 to a hostile device over each framing, from SEED=1; fails at the first wrong value
	@nice $(BIN)/python -m tests.modbus_soak $(REQUESTS) --seed $(SEED)

# For `make soak`: how often each thing happens (docs/reliability.md).
N := 1000
KILLS = $(N)
CUTS = $(N)
FULL = $(shell expr \( $(N) + 9 \) / 10)
FLIPS = $(shell expr $(N) \* 10)
DEATHS = $(shell expr \( $(N) + 4 \) / 5)
SEEDS = $(N)
APPENDS := 14
OUTAGE := 259200

soak: soak-outbox soak-kills soak-delivery soak-outage soak-lines soak-core soak-modbus soak-opcua soak-opcua-kills ## every long run, hours: N=1000 of each failure, from SEED=1

soak-outbox: setup peers ## kills, power cuts (as root), full disks and flipped bits, at length
	@nice $(BIN)/python -m tests.outbox_soak kills $(KILLS) --seed $(SEED)
	@nice $(BIN)/python -m tests.outbox_soak ext4 $(CUTS) --seed $(SEED)
	@nice $(BIN)/python -m tests.outbox_soak xfs $(CUTS) --seed $(SEED)
	@nice $(BIN)/python -m tests.outbox_soak full $(FULL) --seed $(SEED)
	@nice $(BIN)/python -m tests.outbox_soak harms $(FLIPS) --seed $(SEED)
	@nice $(BIN)/python -m tests.outbox_soak each $(APPENDS)

soak-kills: setup peers ## kill -9 of broker, data center and agent of the whole chain, DEATHS=200 each, from SEED=1
	@HEADRACE_KILLS=$(DEATHS) HEADRACE_SEED=$(SEED) nice $(BIN)/python -m pytest -q -s tests/test_kills.py tests/test_kills_datacenter.py

soak-delivery: setup ## SEEDS=1000 lives of an agent on virtual time, from seed 0
	@HEADRACE_SEEDS=$(SEEDS) HEADRACE_DICE=$(DICE) nice $(BIN)/python -m pytest -q --timeout 0 tests/test_outbox.py tests/test_delivery_simulation.py tests/test_moments.py

soak-outage: setup peers ## an outage of OUTAGE=259200 s at 1,000 readings/s, compressed in time, drained beside live readings
	@HEADRACE_OUTAGE=$(OUTAGE) nice $(BIN)/python -m pytest -q -s --timeout 0 tests/test_outage.py

soak-lines: setup peers ## every network fault on the lines to brokers and to devices
	@HEADRACE_SOAK=1 nice $(BIN)/python -m pytest -q tests/test_network_faults.py tests/test_device_faults.py

peers: tools ## install the brokers and device servers that the tests talk to
	@tests/peers/install.sh
	@$(MAKE) --silent --no-print-directory $(NODE_MODULES) $(LIBMODBUS) $(MODBUS_LOAD) $(ASYNC_OPCUA_SERVER)

$(NODE_MODULES): tests/peers/node/package.json tests/peers/node/package-lock.json
	@echo "==> npm packages of the test peers"
	@cd tests/peers/node && npm ci --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error
	@touch $@

$(LIBMODBUS): target/peers/%: tests/peers/%.c
	@echo "==> $(@F), with libmodbus"
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -O1 -Wall -Wextra -Werror -o $@ $< -lmodbus

$(MODBUS_LOAD): benchmarks/modbus_load.c
	@echo "==> Modbus load server"
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -o $@ $<

$(ASYNC_OPCUA_SERVER): tests/peers/opcua_server/Cargo.toml tests/peers/opcua_server/Cargo.lock $(wildcard tests/peers/opcua_server/src/*.rs tests/peers/opcua_server/src/*/*.rs) $(wildcard tests/peers/opcua_server/src/*/*/*.rs)
	@echo "==> async-opcua server (a few minutes the first time)"
	@$(CARGO) build --quiet --release --locked --manifest-path tests/peers/opcua_server/Cargo.toml --target-dir target/peers/opcua
	@touch $@

clean: ## remove what was built; the readings in ./var stay
	rm -rf .venv target agent/_native*.so tests/peers/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
