# Two commands for a fresh machine: `make run` and `make test`. Each does its own set-up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ringmesh-ready

.PHONY: run up test lint bench test-docker test-linux test-qemu-its linux-guest qemu lock clean help
.DEFAULT_GOAL := help

help:             ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 20

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "ringmesh needs python3 (3.11 or newer): apt-get install python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ringmesh needs Python 3.11 or newer; $$($(PYTHON) --version) is too old (set PYTHON=…)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "ringmesh needs Python's venv module: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) with the pinned dependencies …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP)     ## start the platform, drive it for 30 s, report (ARGS="--seconds 10 --report r.json")
	@$(BIN)/ringmesh run $(ARGS)

up: $(STAMP)      ## the platform under its workload until Ctrl-C
	@$(BIN)/ringmesh up $(ARGS)

test: $(STAMP)    ## everything that a fresh machine can check: lint, types, contracts, tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)    ## lint, types and import contracts only
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

bench: $(STAMP)   ## the benchmarks, each beside its baseline in the same minute
	@$(BIN)/ringmesh bench $(ARGS)

test-docker: $(STAMP)  ## image and compose file against a Docker engine (DOCKER_HOST, docker-compose)
	@$(BIN)/python -m pytest -m docker tests/deploy $(ARGS)

qemu:             ## QEMU 8.1 or newer for the Linux guest; on Debian as root it is installed (bookworm: from backports)
	@deploy/linux-guest/install-qemu.sh

linux-guest: $(STAMP)  ## kernel and first file system of the Linux guest (RINGMESH_LINUX_GUEST: a directory with an Image)
	@deploy/linux-guest/build.sh build/linux-guest $(BIN)/python

test-linux: $(STAMP) qemu linux-guest  ## boot a real Linux on the SCMI platform and judge it by what its drivers say
	@$(BIN)/python -m pytest -m linux tests/linux $(ARGS)

test-qemu-its: $(STAMP)  ## the ITS beside a live QEMU: cases, registers, streams (RINGMESH_QEMU_COMMANDS, 20000 a test)
	@$(BIN)/python -c 'import sys; from tests.qemu.qtest import missing; sys.exit(missing() or 0)'
	@RINGMESH_QEMU_COMMANDS=$${RINGMESH_QEMU_COMMANDS:-20000} $(BIN)/python -m pytest -m qemu_its tests/qemu $(ARGS)

lock: $(STAMP)    ## pin the dependencies of pyproject.toml again (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -o requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -o requirements-run.lock

clean:            ## drop the virtual environment and caches
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
