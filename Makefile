# Each target sets up what it needs in $(VENV); a stamp file makes later runs quick. Needed on the
# machine: Python >= 3.10, GNU make, bash, a package index that pip can reach. On Windows: GNU make
# and Git's bash first on PATH, as on GitHub's runners.
#
#   PYTHON=python3.12    the interpreter of the environment (default: the first >= 3.10 on PATH)
#   ARGS="-k recovery"   passed on to what the target runs

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

VENV ?= .venv
ARGS ?=

ifeq ($(OS),Windows_NT)
VENV_BIN := $(VENV)/Scripts
else
VENV_BIN := $(VENV)/bin
endif
RUN := $(VENV_BIN)/python

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
CANDIDATES := python3 python python3.14 python3.13 python3.12 python3.11 python3.10 py

ifdef PYTHON
# A PYTHON that was asked for replaces an environment made with another one.
WHICH := import sys; print(sys.version, getattr(sys, 'abiflags', ''))
ifneq ($(shell $(PYTHON) -c "$(WHICH)" 2>&1),$(shell $(RUN) -c "$(WHICH)" 2>/dev/null))
$(shell rm -rf "$(VENV)")
endif
else
PYTHON = $(shell for p in $(CANDIDATES); do \
	"$$p" -c "$(NEW_ENOUGH)" >/dev/null 2>&1 && { echo "$$p"; break; }; done)
endif

.PHONY: help demo test test-long test-all-pythons check bench bench-peers bench-docs clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | while IFS=@ read -r t d; do \
		printf '%-26s%s\n' "$$t" "$$d"; done

demo: $(VENV)/installed-demo  ## kill a writer again and again, and see that nothing acknowledged is lost
	@$(RUN) examples/crash_recovery.py $(ARGS)

# Three parts that run side by side: what one waits for the disk, another uses. All are seen to their
# ends, whatever fails.
define side_by_side
@told="$$(mktemp -d)"; failed=0; \
	trap 'kill $$(jobs -p) 2>/dev/null || true; rm -rf "$$told"' EXIT; trap 'exit 130' INT TERM; \
	$(1) tests/store >"$$told/1" 2>&1 & first=$$!; \
	$(1) $(LABORATORY) >"$$told/2" 2>&1 & second=$$!; \
	$(1) tests $(patsubst %,--ignore=%,tests/store $(LABORATORY)) || failed=$$?; \
	wait $$first || failed=$$?; wait $$second || failed=$$?; \
	cat "$$told/1" "$$told/2"; exit $$failed
endef

test: LABORATORY := tests/laboratory
test: $(VENV)/installed-test  ## the test suite, without the long campaigns
ifdef ARGS
	@$(RUN) -m pytest $(ARGS)
else
	$(call side_by_side,$(RUN) -m pytest)
endif

# SEED repeats a run, SCALE makes it longer or shorter, LEDGER=FILE keeps what was tried as JSON.
test-long: export SEED := $(or $(SEED),$(shell echo $$(( (RANDOM << 15) + RANDOM ))))
test-long: LABORATORY := $(addprefix tests/laboratory/,bit_rot hostile machines soak syncs)
LONG = $(RUN) -m pytest -m long --hypothesis-seed=$(SEED)
test-long: $(VENV)/installed-test  ## the long campaigns; SEED=n repeats a run, SCALE=10 is for a night
	@echo "SEED=$(SEED)    (to repeat this run: make test-long SEED=$(SEED))"
ifdef ARGS
	@$(LONG) $(ARGS)
else
	$(call side_by_side,$(LONG))
endif

test-all-pythons: $(VENV)/made  ## the test suite under every CPython 3.10 to 3.14 found here
	@$(RUN) .ci/all_pythons.py $(ARGS)

check: $(VENV)/installed-dev  ## format, lint, types, layers, doctests, links
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@for platform in linux darwin win32; do \
		echo "mypy, as on $$platform"; \
		$(RUN) -m mypy --platform $$platform --cache-dir .mypy_cache/$$platform || exit 1; \
	done
	@$(RUN) -m pytest -q tests/test_layering.py tests/test_doctests.py tests/test_docs.py

bench: $(VENV)/installed-bench  ## the log and the store by themselves, their goals
	@$(RUN) -m benches $(ARGS)

bench-peers: $(VENV)/installed-bench  ## the store beside other engines, some 20 minutes
	@$(RUN) -m benches.peers $(ARGS)

bench-docs: $(VENV)/installed-bench  ## bench-peers, and its tables and plots into docs/
	@$(RUN) -m benches.peers --plots --out docs/benchmarks.json $(ARGS)
	@$(RUN) -m benches.plots docs/benchmarks.json docs
	@$(RUN) -m benches.peers.markdown docs/benchmarks.json docs/benchmarks.md

clean:  ## remove the environments, builds and caches
	rm -rf "$(VENV)" .venv .venvs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.10 found; name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c "$(NEW_ENOUGH)" || { echo "$(PYTHON) is not a Python >= 3.10" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) -c 'import sys; print(sys.version.split()[0])')"
	@$(PYTHON) -m venv --clear "$(VENV)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check "pip>=23.1"
	@touch "$@"

# One stamp for each extra of pyproject.toml.
$(VENV)/installed-%: $(VENV)/made pyproject.toml
	@echo "installing kvstore[$*] into $(VENV)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch "$@"
