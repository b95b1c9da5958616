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
.PHONY: help demo test tools test-quick test-more test-faults test-damage test-kills test-cuts fuzz test-accelerators test-qemu-versions test-covered coverage coverage-report accelerators newest-python dist test-wheel deb test-deb lint fmt docs site site-links guest-image bench bench-files bench-guests bench-chains bench-link bench-scaling bench-jobs bench-postcopy bench-starts bench-digests bench-faults bench-sealing bench-plots bench-compare clean

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

# Parts of the tests, folders or files of them, run side by side. Those that take longest come first,
# and none takes long, so that 2 processors are busy to the end; "rest" is whatever is in no other
# part. A part alone doesn't fill half a processor (a half of the guests took 107 s of one in 262 s,
# golden 28 in 60), for tests wait for guests, servers and disks. So five run at a time.
SIDE_BY_SIDE := $(MAKE) --no-print-directory --jobs=5 --keep-going --output-sync=target
PYTEST := $(BIN)/python -m pytest
COVERED := images unit backups
GUESTS := guests-l guests-r guests-run guests-z guests-h guests-o
PARTS := $(GUESTS) batch faults servers images unit documents migration cli backups
PATHS_guests-h := tests/qemu/test_[a-h]*.py
PATHS_guests-l := tests/qemu/test_[i-l]*.py
PATHS_guests-o := tests/qemu/test_[m-o]*.py
PATHS_guests-r := tests/qemu/test_[pq]*.py tests/qemu/test_r[a-t]*.py
PATHS_guests-run := tests/qemu/test_r[u-z]*.py
PATHS_guests-z := tests/qemu/test_[s-z]*.py
PATHS_faults := tests/faults tests/crashes tests/fuzz
PATHS_servers := tests/s3 tests/cluster tests/daemons
PATHS_documents := tests/examples tests/golden tests/sealing
paths = $(or $(PATHS_$1),tests/$1)
# The properties are for test-more, with more examples.
ELSEWHERE := tests/qemu tests/property $(foreach part,$(filter-out guests-%,$(PARTS)),$(call paths,$(part)))

test: $(BIN)/.installed tools  ## the tests, under 10 minutes
	$(BIN)/python -m tests.support.guests.build --ram $(DEMO_RAM) --output $(DEMO_GUEST)
	@echo "parts of the tests run side by side; what they print comes at their ends"
	@$(SIDE_BY_SIDE) test-of-rest $(PARTS:%=test-of-%)

test-of-%:
	$(PYTEST) -m "not sweep" $(call paths,$*)

test-of-rest:
	$(PYTEST) -m "not sweep" tests $(ELSEWHERE:%=--ignore=%)

MORE := $(GUESTS) property migration servers
test-more: $(BIN)/.installed tools  ## more guests under QEMU, object storage, clusters; minutes
	@$(SIDE_BY_SIDE) more-of-rest $(MORE:%=more-of-%)

more-of-%: export SNAPMIG_LONG_TESTS := 1
more-of-property:
	$(PYTEST) tests/property

more-of-rest:
	$(PYTEST) -m sweep tests $(patsubst %,--ignore=%,tests/qemu tests/property tests/migration \
		tests/crashes $(PATHS_servers))

more-of-%:
	$(PYTEST) -m sweep $(call paths,$*)

# Without these the demo shows a stand-in for a guest and tests skip, and both say so.
tools:           ## install QEMU and the other tools where that is possible
	@.ci/install-tools || echo "going on without them"

test-quick: $(BIN)/.installed  ## unit tests and golden files: no guest, no root, about a minute
	$(BIN)/python -m pytest -m "not guest and not root and not sweep" tests/unit tests/golden

# Each byte of snapshots in turn, and hostile input for every reader for FUZZ_SECONDS in all. What the
# fuzzer finds is in .cache/fuzz; `python -m tests.fuzz READER 600` fuzzes a single one.
FUZZ_SECONDS ?= 600
FAULTS := test-kills test-cuts test-damage fuzz
test-faults: $(BIN)/.installed tools  ## runs killed, failing disks, damage, hostile input; minutes
	@$(SIDE_BY_SIDE) $(FAULTS) FUZZ_SECONDS=60

test-kills:
	$(BIN)/python -m pytest -q -m sweep tests/crashes/test_kills.py

test-cuts:
	$(BIN)/python -m pytest -q -m sweep tests/crashes --ignore=tests/crashes/test_kills.py

test-damage: $(BIN)/.installed
	SNAPMIG_ALL_FAULTS=1 $(BIN)/python -m pytest -q -rP tests/faults/test_damage.py

fuzz: $(BIN)/.fuzz-installed  ## fuzz every reader for FUZZ_SECONDS=600 in all
	$(BIN)/python -m tests.fuzz all $(FUZZ_SECONDS)

$(BIN)/.fuzz-installed: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --group fuzz
	touch $@

# There the libraries of the accelerators are real, and Python is newer. It has no gdb
# or binutils, for these are large and say nothing of either.
IN_ROOT := .ci/root accelerators --run env SNAPMIG_REQUIRE_TOOLS=1 python -m pytest
test-accelerators: tools  ## accelerators, and the newest Python, in a newer Debian; needs root
	@.ci/root accelerators
	@$(SIDE_BY_SIDE) newest-python accelerators

accelerators:
	$(IN_ROOT) tests/accelerators

newest-python:
	$(IN_ROOT) -m "not guest and not root" --ignore-glob='tests/unit/test_bench*' \
		tests/unit tests/golden tests/parity

# Their own programs run on this machine's files; what a version can't do names the one it needs.
test-qemu-versions: $(BIN)/.installed tools  ## guests under QEMU 7.2 and 11; needs root
	@.ci/root qemu-7 && .ci/root qemu-11
	@$(SIDE_BY_SIDE) $(foreach part,$(GUESTS) batch,test-qemu-7-$(part) test-qemu-11-$(part))

WITH_QEMU = SNAPMIG_TEST_QEMU="$$(.ci/root qemu-$1 --qemu)" $(PYTEST) -m "guest and not sweep"
test-qemu-7-%:
	$(call WITH_QEMU,7) $(call paths,$*)

test-qemu-11-%:
	$(call WITH_QEMU,11) $(call paths,$*)

# Workers are forked, and killed at the end: pyproject.toml has coverage follow them, and under it
# tests/conftest.py has them leave. A process that a test kills may leave half a file of data; combine
# passes over it with a warning.
QUICK := not guest and not root and not sweep
coverage: $(BIN)/.installed  ## lines that tests in COVERED run, in workers too; fails below a floor
	rm -f .coverage .coverage.*
	@$(SIDE_BY_SIDE) $(COVERED:%=coverage-of-%)
	@$(MAKE) --no-print-directory coverage-report

coverage-of-%:
	$(BIN)/coverage run -m pytest -q -m "$(QUICK)" tests/$*

coverage-report:
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --show-missing

test-covered: $(BIN)/.installed tools  ## all of test and coverage, each test once: for CI
	$(BIN)/python -m tests.support.guests.build --ram $(DEMO_RAM) --output $(DEMO_GUEST)
	rm -f .coverage .coverage.*
	@$(SIDE_BY_SIDE) $(COVERED:%=coverage-of-%) \
		$(patsubst %,test-of-%,rest $(filter-out $(COVERED),$(PARTS)) uncovered)
	@$(MAKE) --no-print-directory coverage-report

# Programs of other users can't write what coverage counts.
test-of-uncovered:
	$(PYTEST) -m "(guest or root) and not sweep" $(COVERED:%=tests/%)

dist: $(BIN)/.installed  ## build wheel and source distribution into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

test-wheel: dist  ## the wheel, in each Python from 3.11 to 3.14 that is here
	.ci/test-wheel dist/*.whl

deb: dist        ## build a Debian package, for this release of Debian, into build/deb/
	.ci/build-deb

# Each is built in that release, then installed, tried and removed there, where nothing else is.
test-deb: dist   ## Debian packages for Debian 12 and 13; needs root
	@$(MAKE) --no-print-directory test-deb-12 test-deb-13

test-deb-%:
	.ci/root debian-$* --run sh -euc 'apt-get -q update; apt-get -q -y --no-install-recommends build-dep ./.ci; \
		.ci/build-deb build/debian-$*'
	.ci/root debian-$* --run .ci/test-deb build/debian-$*/*.deb

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

site: $(BIN)/.installed  ## build the documentation site into build/site/html; a broken link fails
	$(BIN)/python -m tests.manual.site

site-links: $(BIN)/.installed  ## ask other hosts whether their pages are there
	$(BIN)/python -m tests.manual.site --links

guest-image: $(BIN)/.installed tools  ## the RAM of a real Linux guest, GUEST_RAM=2G
	$(BIN)/python -m tests.support.guests.build --ram $(GUEST_RAM) --output $(GUEST)

bench: bench-files bench-guests bench-starts bench-chains  ## measure beside other programs, and beside QEMU

bench-files: guest-image  ## measure beside igzip, pigz, zstd and lz4
	$(BIN)/python -m tests.bench --image $(GUEST) $(BENCH_ARGS)

bench-guests: $(BIN)/.installed tools  ## measure guests beside QEMU's own saves and loads
	$(BIN)/python -m tests.bench --guests --ram $(GUEST_RAM) $(BENCH_ARGS)

bench-chains: $(BIN)/.installed tools  ## measure incremental snapshots of a guest at work
	$(BIN)/python -m tests.bench --chains $(BENCH_ARGS)

bench-link: $(BIN)/.installed tools  ## measure guests sent over a link of 1 Gbit/s; needs root
	$(BIN)/python -m tests.bench.link --ram $(GUEST_RAM) $(BENCH_ARGS)

bench-scaling: guest-image  ## measure 8 to 256 waiting workers; a model of saves by as many processors
	$(BIN)/python -m tests.bench.scaling --image $(GUEST) $(BENCH_ARGS)

# Smaller questions, a module each: postcopy and starts of guests, the others of an image.
bench-postcopy bench-starts: bench-%: $(BIN)/.installed tools
	$(BIN)/python -m tests.bench.$* --ram $(GUEST_RAM) $(BENCH_ARGS)

bench-digests bench-faults bench-sealing: bench-%: guest-image
	$(BIN)/python -m tests.bench.$* $(GUEST) $(BENCH_ARGS)

bench-jobs: guest-image  ## measure with 1, 2, 4 ... jobs
	$(BIN)/python -m tests.bench --image $(GUEST) --scaling $(BENCH_ARGS)

bench-plots: $(BIN)/.installed  ## draw the plots of docs/benchmarks.md, from RESULTS=FILES if given
	$(BIN)/python -m tests.bench.figures $(RESULTS)

bench-compare: $(BIN)/.installed  ## compare two files of results, OLD=FILE NEW=FILE
	$(BIN)/python -m tests.bench.compare $(OLD) $(NEW)

clean:           ## remove what make made, guest images included
	rm -rf .venv .cache build dist
