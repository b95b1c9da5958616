# One door for every chore. A fresh machine needs Python 3.11 or newer and make; the rest is set up
# here: the virtual environment in .venv, and, where apt and root allow it, QEMU and the other tools.

PYTHON ?= python3
BIN := .venv/bin
GUEST_RAM ?= 2G
DEMO_RAM := 256M
DEMO_GUEST := .cache/guest/linux-$(DEMO_RAM).ram
GUEST := .cache/guest/linux-$(GUEST_RAM).ram
BENCH_ARGS ?=

# Tests and benchmarks start hundreds of processes; without it each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test tools test-quick test-half-1 test-half-2 test-more test-accelerators test-qemu-versions coverage wheel lint fmt docs guest-image bench bench-files bench-guests bench-chains bench-link bench-scaling clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

# The stamp depends on pyproject.toml only: the package itself is installed in place.
$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

demo: $(BIN)/.installed tools  ## save, inspect, verify and restore a real guest's memory
	$(BIN)/python -m tests.support.guests.build --ram $(DEMO_RAM) --output $(DEMO_GUEST)
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh $(DEMO_GUEST)

# Two halves side by side, as long as each other on 2 processors.
TEST := $(BIN)/python -m pytest -m "not sweep"
HALF := tests/batch tests/examples tests/golden tests/qemu
# The properties are for test-more, with more examples.
REST := tests $(HALF:%=--ignore=%) --ignore=tests/property

test: $(BIN)/.installed tools  ## the tests, under 10 minutes
	$(BIN)/python -m tests.support.guests.build --ram $(DEMO_RAM) --output $(DEMO_GUEST)
	@echo "two halves of the tests run side by side; what they print comes at their ends"
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target test-half-1 test-half-2

test-half-1:
	$(TEST) $(HALF)

test-half-2:
	$(TEST) $(REST)

test-more: $(BIN)/.installed tools  ## more guests under QEMU, object storage, clusters; minutes
	SNAPMIG_LONG_TESTS=1 $(BIN)/python -m pytest -m sweep
	SNAPMIG_LONG_TESTS=1 $(BIN)/python -m pytest tests/property

# Without these the demo shows a stand-in for a guest and tests skip, and both say so.
tools:           ## install QEMU and the other tools where that is possible
	@.ci/install-tools || echo "going on without them"

test-quick: $(BIN)/.installed  ## unit tests and golden files: no guest, no root, about a minute
	$(BIN)/python -m pytest -m "not guest and not root and not sweep" tests/unit tests/golden

# There the libraries of the accelerators are real, and Python is newer. It has no matplotlib, gdb
# or binutils, for these are large and say nothing of either.
IN_ROOT := .ci/root accelerators --run env SNAPMIG_REQUIRE_TOOLS=1 python -m pytest
test-accelerators: tools  ## accelerators, and the newest Python, in a newer Debian; needs root
	$(IN_ROOT) tests/accelerators
	$(IN_ROOT) -m "not guest and not root" --ignore-glob='tests/unit/test_bench*' \
		tests/unit tests/golden tests/parity

# Their own programs run on this machine's files; what a version can't do names the one it needs.
test-qemu-versions: $(BIN)/.installed tools  ## guests under QEMU 7.2 and 11; needs root
	@.ci/root qemu-7 && .ci/root qemu-11
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target test-qemu-7 test-qemu-11

test-qemu-%:
	SNAPMIG_TEST_QEMU="$$(.ci/root qemu-$* --qemu)" $(BIN)/python -m pytest \
		-m "guest and not sweep" tests/qemu tests/batch tests/examples

# Workers are forked, and killed at the end: pyproject.toml has coverage follow them, and under it
# tests/conftest.py has them leave. A process that a test kills may leave half a file of data; combine
# passes over it with a warning. Folders go side by side, the longest first.
COVERED := images unit backups
coverage: $(BIN)/.installed  ## lines that tests in COVERED run, in workers too; fails below a floor
	rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target \
		$(COVERED:%=coverage-of-%)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --show-missing

coverage-of-%:
	$(BIN)/coverage run -m pytest -q -m "not guest and not root and not sweep" tests/$*

wheel: $(BIN)/.installed  ## build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel

lint: $(BIN)/.installed  ## style, types and layers; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(BIN)/.installed  ## rewrite files into the one style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(BIN)/.installed  ## rewrite the manual pages and the shells' completions
	$(BIN)/python -m tests.manual

guest-image: $(BIN)/.installed tools  ## the RAM of a real Linux guest, GUEST_RAM=2G
	$(BIN)/python -m tests.support.guests.build --ram $(GUEST_RAM) --output $(GUEST)

bench: bench-files bench-guests bench-chains  ## measure beside other programs, and beside QEMU

bench-files: guest-image  ## measure beside igzip, pigz, zstd and lz4
	$(BIN)/python -m tests.bench --image $(GUEST) $(BENCH_ARGS)

bench-guests: $(BIN)/.installed tools  ## measure guests beside QEMU's own saves and loads
	$(BIN)/python -m tests.bench --guests --ram $(GUEST_RAM) $(BENCH_ARGS)

bench-chains: $(BIN)/.installed tools  ## measure incremental snapshots of a guest at work
	$(BIN)/python -m tests.bench --chains $(BENCH_ARGS)

bench-link: $(BIN)/.installed tools  ## measure guests sent over a link of 1 Gbit/s; needs root
	$(BIN)/python -m tests.bench.link --ram $(GUEST_RAM) $(BENCH_ARGS)

bench-scaling: guest-image  ## measure with 1, 2, 4 ... jobs
	$(BIN)/python -m tests.bench --image $(GUEST) --scaling $(BENCH_ARGS)

clean:           ## remove what make made, guest images included
	rm -rf .venv .cache build dist
