# Every command of the project, once. Each target creates what it lacks; stamps in .venv remember it.
# Needs a Rust toolchain, CPython >= 3.10 and make. `make` alone lists the targets.

PYTHON ?= python3
VENV   ?= .venv
# A folder that may hold a CPU wheel of torch; it need not exist.
WHEELS ?= ../shared/wheels

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

STAMPS := $(VENV)/stamps
BIN    := $(abspath $(VENV))/bin
PY     := $(BIN)/python
TORCH  := $(VENV)/torch.txt
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check --constraint dev/constraints.txt

# The extension is built for the interpreter of the virtual environment, by every cargo command.
export PYO3_PYTHON := $(PY)
export VIRTUAL_ENV := $(abspath $(VENV))

RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) $(wildcard Cargo.toml Cargo.lock)
PYTHON_SOURCES := $(shell find python -name '*.py' -o -name '*.pyi')
LOOM_MODELS  := $(patsubst rust/carpool-core/tests/%.rs,%,$(wildcard rust/carpool-core/tests/loom*.rs))
VALGRIND     := $(shell command -v valgrind)
NEXTEST      := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

# ---------------------------------------------------------------------------------------- targets

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(STAMPS)/build $(STAMPS)/demo ## embed a few thousand sentences, one by one and batched
	HF_HUB_OFFLINE=1 $(PY) examples/demo.py $(DEMO_ARGS)

.PHONY: build
build: $(STAMPS)/build ## build the extension in release mode into the virtual environment

.PHONY: test
test: test-rust test-python test-plain test-docs types ## all tests

# The extension itself is tested through Python: a test binary of it would need a shared libpython.
.PHONY: test-rust
test-rust: $(STAMPS)/venv ## the core: unit, property, simulation, doc tests, and the loom models
ifeq ($(NEXTEST),yes)
	cargo nextest run --workspace --exclude carpool-py
else
	cargo test --workspace --exclude carpool-py --lib --bins --tests
endif
	cargo test --workspace --exclude carpool-py --doc
ifneq ($(LOOM_MODELS),)
	LOOM_MAX_PREEMPTIONS=2 RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
	    cargo test -p carpool-core --release $(addprefix --test ,$(LOOM_MODELS))
endif

.PHONY: test-python
test-python: $(STAMPS)/build $(STAMPS)/test ## the Python layer, on the extension in release mode
	$(PY) -m pytest --ignore=tests/test_docs.py $(PYTEST_ARGS)

.PHONY: test-plain
test-plain: $(STAMPS)/plain $(STAMPS)/test ## the Python tests once more, on the extension without raw types
	PYTHONPATH=$(abspath $(VENV))/plain $(PY) -c 'from carpool import _core; assert not _core.RAW'
	PYTHONPATH=$(abspath $(VENV))/plain $(PY) -m pytest --ignore=tests/test_docs.py $(PYTEST_ARGS)

.PHONY: test-docs
test-docs: $(STAMPS)/build $(STAMPS)/test ## the code in README, docs/ and docstrings
	$(PY) -m pytest tests/test_docs.py

# What is on the raw type of an awaitable, under memcheck: some minutes.
VALGRIND_TESTS ?= tests/test_asyncio.py tests/test_asyncio_cancel.py tests/test_call.py tests/test_submit.py
.PHONY: valgrind
valgrind: $(if $(VALGRIND),$(STAMPS)/memcheck $(STAMPS)/test) ## the tests of the awaitable and of copying rows, every access to memory checked
ifeq ($(VALGRIND),)
	@echo "skipped: valgrind is not installed here"
else
	PYTHONPATH=$(abspath $(VENV))/memcheck PYTHONMALLOC=malloc PYTHONHASHSEED=0 \
	    valgrind --quiet --error-exitcode=9 --leak-check=no --suppressions=tests/valgrind/python.supp \
	    $(PY) -m pytest -q -p no:cacheprovider --timeout 0 $(VALGRIND_TESTS)
	PROPTEST_CASES=60 cargo --config 'target."cfg(all())".runner = ["valgrind", "--quiet", "--error-exitcode=9"]' \
	    test --package carpool-collate --lib
endif

.PHONY: mutations
mutations: ## break the core on purpose in every listed place; each must be noticed
	python3 rust/carpool-core/tests/mutations

.PHONY: types
types: $(STAMPS)/build $(STAMPS)/lint $(STAMPS)/test ## mypy (strict), pyright, and the stub against the extension
	$(PY) -m mypy
	$(BIN)/pyright --pythonpath $(PY) --warnings
	$(PY) -m mypy.stubtest carpool._core

.PHONY: lint
lint: $(STAMPS)/lint types ## formatting, ruff, clippy, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package carpool-py --features plain -- -D warnings
	$(PY) rust/carpool-core/tests/mutations --check

.PHONY: fmt
fmt: $(STAMPS)/lint ## format the sources and apply ruff's safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cargo fmt --all

.PHONY: bench
bench: $(STAMPS)/build $(STAMPS)/bench ## the core in Rust, the quick comparison, collating beside memory copies
	cargo bench --workspace --exclude carpool-py
	$(PY) benches/compare.py --quick
	$(PY) benches/collate.py

.PHONY: bench-target
bench-target: ## latency targets beside fixed settings, AIMD and a fit, in virtual time (CARPOOL_SEEDS, CARPOOL_REQUESTS)
	cargo bench -p carpool-core --bench objective

# Ray Serve and BentoML take part where they are installed: `make bench-compare PEERS="peers peers-big"`.
PEERS ?= peers
.PHONY: bench-compare
bench-compare: $(STAMPS)/build $(STAMPS)/bench ## carpool beside other batchers and hand-written floors
	@$(PIP) $(addprefix --group ,$(PEERS))
	$(PY) benches/compare.py $(COMPARE_ARGS)

.PHONY: bench-overload
bench-overload: $(STAMPS)/build $(STAMPS)/bench ## ten times what a handler can do, for a minute: refusals, goodput, memory
	$(PY) benches/overload.py $(OVERLOAD_ARGS)

.PHONY: bench-padding
bench-padding: ## similar lengths in one batch: padding and latency, with a virtual clock
	cargo test --release --package carpool-core --test padding -- --nocapture

.PHONY: bench-check
bench-check: $(STAMPS)/build $(STAMPS)/bench ## has a hot path become dearer than benches/baseline.json says?
	$(PY) benches/check.py $(CHECK_ARGS)

.PHONY: bench-prices
bench-prices: $(STAMPS)/build $(STAMPS)/bench ## what each option costs per call, in instructions, and all of them together
	$(PY) benches/prices.py $(PRICES_ARGS)

.PHONY: docs
docs: $(STAMPS)/build $(STAMPS)/docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: clean
clean: ## remove everything the targets made
	rm -rf $(VENV) target site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f python/carpool/_core*.so python/carpool/_core*.pyd
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ----------------------------------------------------------------------------------------- stamps

# pip >= 25.1 reads the dependency groups of pyproject.toml.
$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "carpool needs CPython >= 3.10; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@mkdir -p $(STAMPS) && touch $@

# A build can fail half-way: the stamp is written last, and cargo rebuilds only what changed.
$(STAMPS)/build: $(STAMPS)/maturin $(RUST_SOURCES) pyproject.toml
	@echo "building the extension in release mode"
	@$(BIN)/maturin develop --release --quiet
	@touch $@

# Other builds beside the usual one, a feature and a folder each, found first through PYTHONPATH.
$(STAMPS)/plain $(STAMPS)/memcheck: $(STAMPS)/%: $(STAMPS)/maturin $(RUST_SOURCES) $(PYTHON_SOURCES) pyproject.toml
	@echo "building the extension with the feature $*"
	@rm -rf $(VENV)/$* $(VENV)/$*-wheel
	@CARGO_TARGET_DIR=target/$* $(BIN)/maturin build --release --quiet --features $* --interpreter $(PY) --out $(VENV)/$*-wheel
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/$* $(VENV)/$*-wheel/*.whl
	@touch $@

$(STAMPS)/maturin: $(STAMPS)/venv dev/constraints.txt
	@$(PIP) --group build
	@touch $@

$(STAMPS)/lint $(STAMPS)/bench $(STAMPS)/docs: $(STAMPS)/%: $(STAMPS)/venv pyproject.toml dev/constraints.txt
	@echo "installing what $* needs"
	@$(PIP) --group $*
	@touch $@

# Tests of torch rows run where a CPU build is on offer; the demo cannot do without torch.
$(STAMPS)/test: $(STAMPS)/venv pyproject.toml dev/constraints.txt dev/torch-cpu.txt
	@echo "installing what test needs"
	@$(PY) dev/install_torch.py --cpu-only --find-links $(WHEELS) --constraint $(TORCH)
	@$(PIP) --constraint $(TORCH) --group test
	@touch $@

$(STAMPS)/demo: $(STAMPS)/venv pyproject.toml dev/constraints.txt dev/torch-cpu.txt
	@echo "installing what demo needs: torch, sentence-transformers and a model of 90 MB"
	@$(PY) dev/install_torch.py --find-links $(WHEELS) --constraint $(TORCH)
	@$(PIP) --constraint $(TORCH) --group demo
	@touch $@
