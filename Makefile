# `make demo` and `make test` do everything from a fresh clone; both call `setup`.

PYTHON ?= python3
# Tests have a thread each; a file's tests stay in one process, which shares what they make.
TEST_PROCESSES ?= 2
PARALLEL := -n $(TEST_PROCESSES) --dist loadfile --max-worker-restart 0
PYTEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PROGRESS = $(BIN)/python tools/progress_lines.py
FUSED_STAMP := build/fused-ops-stamp
FUSED_SOURCES := $(wildcard $(addprefix bert_tf/fused_ops/*.,cc h inc py))
# Filled in by the first set-up; a missing Horovod is an error only where it is needed.
REQUIRE_HOROVOD ?=

.DEFAULT_GOAL := help
.PHONY: help setup environment horovod fused_ops data demo bench seeds docs test test-fast \
	test-wheel test-faults test-sanitize mutation-check pictures lint format lock clean

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: environment horovod fused_ops data  ## Environment, Horovod and data (up to 5 minutes, then 1 s)

environment: $(VENV)/environment-stamp

$(VENV)/environment-stamp: requirements.lock pyproject.toml
	@python=$(BIN)/python; test -x $$python || python=$(PYTHON); \
	$$python -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 12); \
	sys.exit(None if ok else "error: Python 3.11 or 3.12 is needed, this is %d.%d. " \
	"Name another: make setup PYTHON=python3.11" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV) (about 1.5 minutes)"
	@if command -v uv >/dev/null; then \
	  $(PROGRESS) "Installing" uv pip install --quiet --python $(BIN)/python \
	    -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps -e .; \
	else \
	  $(PROGRESS) "Installing" $(BIN)/python -m pip install --quiet \
	    -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

horovod: environment  ## Build and install Horovod alone
	@$(BIN)/python tools/build_horovod.py || { \
	  test -z "$(REQUIRE_HOROVOD)" && \
	  echo "warning: without Horovod one process works, --horovod does not."; }

# The stamp names the library. To look whether that can be loaded takes TensorFlow 5 s.
fused_ops: environment  ## Compile the fused operations alone
	@{ test -f "$$(cat $(FUSED_STAMP) 2>/dev/null)" && \
	  test -z "$$(find $(FUSED_SOURCES) $(VENV)/environment-stamp \
	    -newer $(FUSED_STAMP))"; } || { \
	  mkdir -p build && rm -f $(FUSED_STAMP) && \
	  $(PROGRESS) "Fused operations" $(BIN)/python -m bert_tf build >$(FUSED_STAMP); \
	} || { \
	  test -z "$(REQUIRE_HOROVOD)" && \
	  echo "warning: without the fused operations training is slower."; }

data: environment
	@$(BIN)/python tools/fetch_data.py

demo: setup  ## Pre-train on real text, on one process and on two (10 minutes)
	@$(BIN)/python tools/demo.py

test: setup  ## All tests
	@$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-fast: setup  ## The tests that take less than 2 minutes together
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(PYTEST_ARGS)

# A clean environment and a copy of the checkout in which bert_tf is the installed one:
# scripts, tests and documents use the wheel. Without Horovod, which is built.
WHEEL := build/wheel
OUTSIDE := $(WHEEL)/outside
test-wheel: environment data  ## The fast tests on a wheel in a clean environment
	@rm -rf build/lib build/bdist.* $(WHEEL) && mkdir -p $(OUTSIDE)
	@$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w $(WHEEL)/dist .
	@$(BIN)/python -m venv $(WHEEL)/venv
	@echo "Installing the wheel and what it needs (about 2 minutes)"
	@$(PROGRESS) "Installing" $(WHEEL)/venv/bin/python -m pip install --quiet \
	  --constraint requirements.lock "$$(echo $(WHEEL)/dist/*.whl)[dev]"
	@$(PROGRESS) "Fused operations" $(WHEEL)/venv/bin/python -P -m bert_tf build
	@git ls-files -z -c -o --exclude-standard ':!bert_tf' | \
	  tar --create --null --files-from=- --ignore-failed-read | tar --extract -C $(OUTSIDE)
	@ln -s $(CURDIR)/.data $(OUTSIDE)/.data
	@ln -s $$($(WHEEL)/venv/bin/python -P -c \
	  "import bert_tf; print(*bert_tf.__path__)") $(OUTSIDE)/bert_tf
	@cd $(OUTSIDE) && $(CURDIR)/$(WHEEL)/venv/bin/python -m pytest \
	  -m "not slow and not horovod" $(PYTEST_ARGS)

# Twenty lines; then random changes, of which at least 85% must be noticed.
mutation-check: setup  ## Breaks lines of the library: a test must notice each
	@$(BIN)/python tools/mutation_check.py
	@$(BIN)/python tools/mutation_check.py --random=100 --group=losses_and_optimizers
	@$(BIN)/python tools/mutation_check.py --random=100 --group=without_tensorflow

pictures: environment  ## Pictures of the documents' runs in results/ (needs Chromium)
	@$(BIN)/python tools/picture.py results/tiny/report.html docs/pictures/tiny.png Data
	@$(BIN)/python tools/picture.py results/boolq/report.html docs/pictures/boolq.png \
	  "Hardest examples"
	@$(BIN)/python tools/picture.py results/comparison.html docs/pictures/comparison.png

test-faults: setup  ## Kills, signals, damaged files and bad input, in full (90 minutes)
	@BERT_TF_FAULTS=full $(BIN)/python -m pytest $(PARALLEL) \
	--timeout=5400 -o faulthandler_timeout=5500 $(PYTEST_ARGS) tests/faults

# One process: the sanitizer's memory is no place for two. Python itself leaks.
SANITIZED := build/sanitized/library.so
test-sanitize: environment  ## Tests of the compiled operations, under AddressSanitizer
	@$(BIN)/python tools/build_sanitized.py $(SANITIZED)
	@BERT_TF_KERNELS=$(CURDIR)/$(SANITIZED) BERT_TF_FUZZ_CALLS=8000 \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:use_sigaltstack=0 \
	$(BIN)/python -m pytest -q -p no:faulthandler $(PYTEST_ARGS) tests/fused_ops \
	  tests/modeling/backends \
	  tests/training/test_update_formulas.py

seeds: setup  ## Commands of five published systems, on small data (20 minutes)
	@$(BIN)/python tools/seeds.py

bench: setup .venv-bench/stamp  ## Speed against others (90 minutes; QUICK=1: 20)
	@$(BIN)/python benchmarks/speed.py $(if $(QUICK),--quick)

.venv-bench/stamp: benchmarks/requirements.txt
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@echo "Installing the systems to compare with into .venv-bench (about 3 minutes)"
	@$(PROGRESS) "Installing" .venv-bench/bin/python -m pip install --quiet \
	  -r benchmarks/requirements.txt || { \
	  echo "warning: not all could be installed; one by one:"; \
	  grep -v '^#' benchmarks/requirements.txt | while read -r package; do \
	    .venv-bench/bin/python -m pip install --quiet $$package || \
	    echo "warning: without $$package the table names it as missing."; done; }
	@touch $@

docs: .venv-docs/stamp  ## The documents as a site, in build/site
	@rm -rf build/pages && mkdir -p build/pages
	@cp -R *.md LICENSE demo.toml docs deploy examples build/pages/
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict

.venv-docs/stamp: pyproject.toml
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@echo "Installing mkdocs into .venv-docs (about 1 minute)"
	@.venv-docs/bin/python -m pip install --quiet $$($(PYTHON) -c "import tomllib; \
	print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])")
	@touch $@

lint: environment  ## What CI checks of the style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: environment  ## Fix the style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: environment  ## Write the installed versions into requirements.lock
	@$(BIN)/python tools/write_lock.py

# Leaves .venv, .data and everything that a run has written.
clean:  ## Remove what tools leave behind; no environment, no data, no results
	@rm -rf build mutants *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -path ./.git -prune -o -name __pycache__ -type d \
	  -prune -exec rm -rf {} +
