# The one front door. Each target makes what it needs: a virtual environment and the built extension.
#   make demo         the tour: a service under up to ten times its load, beside asyncio and uvloop; faults named
#   make test         every test, natively; what may differ, on the pure wheel and on each other CPython found as well
#   make check        ruff, mypy, stubtest, the rules of the house
#   make conformance  CPython's own test_asyncio on the loops that penstock builds
#   make package      sdist and wheel, the wheel built from the sdist, audited for manylinux, installed on its own
#   make sanitize     the tests and a stress of the loop under gcc's sanitizers
#   make bench soak docs clean
# PYTHON=/path/to/python chooses the interpreter; OTHERS= tests on this one alone.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:
.SECONDARY:

MINORS := 3.13 3.12 3.11 3.14 3.15
# Where CPython 3.N may be: on the path (a pyenv shim among them, which may not work), or under pyenv.
find_python = $(shell for python in python$(1) $(HOME)/.pyenv/versions/$(1).*/bin/python; do \
  "$$python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(1)")' 2>/dev/null && echo "$$python" && break; done)
PYTHON ?= $(or $(firstword $(foreach minor,$(MINORS),$(call find_python,$(minor)))),$(error penstock needs Python 3.11 or later; name one with PYTHON=/path/to/python))
THIS := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
OTHERS ?= $(foreach minor,$(filter-out $(THIS),$(MINORS)),$(if $(call find_python,$(minor)),$(minor)))

BIN := .venv/bin
# The stamps carry the version: another PYTHON makes .venv anew, a changed pyproject.toml brings it up to date.
READY := .venv/ready-$(THIS)
BUILT := .venv/built-$(THIS)
PURE := .venv-pure
PIP := -m pip install -qq --disable-pip-version-check
SOURCES := setup.py tests/unit/core/seams.pyx $(shell find src/penstock/_core -name '*.py' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
JOBS := $(shell nproc 2>/dev/null || echo 2)

.PHONY: help demo test leg-once leg-$(THIS) leg-pure check conformance package sanitize bench soak docs clean build
help:
	@sed -n '2,9s/^# *//p' Makefile

build: $(BUILT)

# --- environments ---------------------------------------------------------------------------------------------------

# $(1) the folder, $(2) the interpreter, $(3) the dependency groups
define make_venv
	@echo "setting up $(1) ($(2))"
	test -e $@ || "$(2)" -m venv --clear $(1)
	$(1)/bin/python $(PIP) --upgrade 'pip>=25.1'
	$(1)/bin/python $(PIP) 'setuptools>=77' 'Cython>=3.1,<4' $(3)
	PENSTOCK_PURE=1 $(1)/bin/python $(PIP) --no-build-isolation --editable '.[serve]'
	touch $@
endef

define build_in
	@echo "building the extension for $(1)"
	mkdir -p build
	$(1)/bin/python setup.py --quiet build_ext --inplace --parallel $(JOBS) >build/$(1).log 2>&1 || { cat build/$(1).log; exit 1; }
	touch $@
endef

$(READY): pyproject.toml
	$(call make_venv,.venv,$(PYTHON),--group test --group once --group check)

$(BUILT): $(SOURCES) $(READY)
	$(call build_in,.venv)

.venv/bench-$(THIS): $(READY)
	$(BIN)/python $(PIP) --group bench
	touch $@

.venv-%/ready: pyproject.toml
	$(call make_venv,.venv-$*,$(call find_python,$*),--group test)

# After .venv's, which leaves the C files: two interpreters never write them at once.
.venv-%/built: $(SOURCES) $(BUILT) .venv-%/ready
	$(call build_in,.venv-$*)

# The package where no extension is built: its wheel alone, in an environment that has none of the source.
$(PURE)/ready-$(THIS): pyproject.toml
	$(call make_venv,$(PURE),$(PYTHON),--group test)
	$(PURE)/bin/python -m pip uninstall -qq -y Cython
	touch $@

$(PURE)/built-$(THIS): setup.py $(shell find src -name '*.py') $(PURE)/ready-$(THIS)
	@echo "building the wheel without the extension for $(PURE)"
	rm -rf build/pure
	mkdir -p build/pure/source
	tar -c --exclude='*.so' --exclude='*.c' --exclude=__pycache__ setup.py pyproject.toml README.md LICENSE src | tar -x -C build/pure/source
	PENSTOCK_PURE=1 $(PURE)/bin/python $(PIP) --no-build-isolation --force-reinstall --no-deps build/pure/source
	touch $@

# $(1) the files' name, without its ending
bench = $(BIN)/python benchmarks/compare.py --part $(1) --json benchmarks/raw/$(1).json \
  --md benchmarks/results/$(1).md --chart benchmarks/results/$(1)

# --- what people type -----------------------------------------------------------------------------------------------

demo: $(BUILT)
	@$(BIN)/python examples/demo.py

# Two legs at once for each CPU, for a leg waits for half of its time; all of them though one fails; none beside a
# compiler. Each is shown whole when it has ended.
LEGS := $(THIS) once $(OTHERS) pure
LEGS_AT_ONCE := $(shell expr 2 \* $(JOBS))
AT_ONCE := --no-print-directory --output-sync=target
test: $(BUILT) $(PURE)/built-$(THIS)
	@$(if $(OTHERS),$(MAKE) $(AT_ONCE) --jobs=$(JOBS) $(OTHERS:%=.venv-%/built))
	echo "legs of the tests, $(LEGS_AT_ONCE) at a time: $(LEGS)"
	$(MAKE) $(AT_ONCE) --jobs=$(LEGS_AT_ONCE) --keep-going $(LEGS:%=leg-%)

# Legs share a machine, and no cache; tests/leg.py runs the few tests that failed once more. What depends on no version of
# Python is a leg of its own: tests/conftest.py.
LEG := python tests/leg.py
VARYING := tests/unit tests/loop tests/e2e

leg-once:
	@echo "Python $(THIS), what runs on one Python alone"
	$(BIN)/$(LEG) -m once
	echo "Python $(THIS) -O: the native core guards itself by no assert"
	$(BIN)/python -O tests/leg.py -W ignore::pytest.PytestConfigWarning tests/unit/core tests/unit/pressure/test_gate_keys.py

leg-$(THIS):
	@echo "Python $(THIS)"
	$(BIN)/$(LEG) $(VARYING) -m 'not once'

leg-pure: $(PURE)/built-$(THIS)
	@echo "Python $(THIS), the wheel without the extension"
	rm -rf build/pure/tests
	tar -c --exclude='*.so' --exclude=__pycache__ pyproject.toml README.md tests examples docs benchmarks | tar -x -C build/pure
	cd build/pure
	../../$(PURE)/bin/$(LEG) $(VARYING) -m 'not once' --ignore tests/unit/executors/threads

leg-%: .venv-%/built
	@echo "Python $*"
	.venv-$*/bin/$(LEG) $(VARYING) -m 'not once and not cores'

check: $(BUILT)
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	stubs=$$(cd src && find penstock/_core -name '*.pyi' ! -name '__init__.pyi' | sed 's|/|.|g; s|\.pyi$$||')
	$(BIN)/python -m mypy.stubtest --allowlist tests/typing/stubtest-allowlist.txt $$stubs
	$(BIN)/python -m pytest tests/meta

conformance: $(BUILT)
	@$(BIN)/python tests/conformance/run.py $(CONFORMANCE)

bench: $(BUILT) .venv/bench-$(THIS)
	@$(BIN)/python benchmarks/instructions.py --only . --json benchmarks/raw/counts.json
	$(call bench,loops) --counts benchmarks/raw/counts.json
	$(call bench,io) --counts benchmarks/raw/counts.json
	$(call bench,executors)
	$(call bench,tasks)
	$(call bench,pressure)
	$(call bench,workers)
	$(BIN)/python benchmarks/readme.py

soak: $(BUILT)
	@$(BIN)/python -m pytest tests/soak --timeout 1800 -o faulthandler_timeout=1800

run_installed = import asyncio, penstock, penstock.loop as loop; assert $(1); penstock.run(asyncio.sleep(0)); print("installed penstock", penstock.__version__, "native" if loop.NATIVE else "pure")
package: $(READY)
	@rm -rf dist build/package build/package-pure
	mkdir -p build
	$(BIN)/python $(PIP) --group package
	$(BIN)/python -m build --outdir dist . >build/package.log 2>&1 || { cat build/package.log; exit 1; }
	$(BIN)/python tests/package/wheel.py dist/*.whl
	$(PYTHON) -m venv build/package
	build/package/bin/python $(PIP) dist/*.whl
	build/package/bin/python -P -W error -c '$(call run_installed,loop.NATIVE)'
	PENSTOCK_PURE=1 $(BIN)/python -m pip wheel -qq --disable-pip-version-check --no-deps --wheel-dir dist/pure dist/*.tar.gz
	$(PYTHON) -m venv build/package-pure
	build/package-pure/bin/python $(PIP) dist/pure/*-py3-none-any.whl
	build/package-pure/bin/python -P -W error -c '$(call run_installed,not loop.NATIVE)'

sanitize: $(READY)
	@tests/soak/sanitize.sh $(BIN)/python $(SANITIZE_SECONDS)

docs: $(BUILT)
	@$(BIN)/python -m pytest tests/meta/test_docs.py tests/meta/test_architecture.py tests/meta/test_config_doc.py tests/meta/test_reference_tables.py tests/e2e/test_documents.py

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/build benchmarks/raw src/*.egg-info
	find src tests -name '*.so' -delete -o -path '*/_core/*.c' -delete -o -name seams.c -delete -o -path '*/_core/*.html' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +
