# predictd: `make run` serves a real model, `make test` proves that it works. Needs Python >= 3.11, make and git.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
UV     := $(VENV)/bin/uv
PROTOS := $(shell find protos -name '*.proto')

export PYTHONSAFEPATH := 1
export ORT_DISABLE_TELEMETRY := 1

.PHONY: run test check bench soak lock clean install

run: $(STAMP)
	$(BIN)/predictd demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not soak and not gpu" $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/typing/canary.py

bench: $(STAMP)
	PYTHONPATH=. $(BIN)/python -m tests.bench $(ARGS)

soak: $(STAMP)
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

install: $(STAMP)

# The environment is made from the lock file alone: names, versions and hashes, from whatever index pip is set up for.
$(STAMP): pyproject.toml clients/pyproject.toml requirements.lock hatch_build.py $(PROTOS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'predictd needs Python 3.11 or newer; set PYTHON=/path/to/python3.11 (found: '"`$(PYTHON) --version`"')' >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo 'predictd needs the venv module: apt-get install python3-venv' >&2; exit 1; }
	@test -x $(UV) || $(BIN)/pip install --quiet --require-hashes --no-deps -r requirements-uv.lock
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e clients -e .
	$(BIN)/python hatch_build.py
	@touch $@

lock: $(STAMP)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
	  --no-emit-package predictd-client --extra demo --group dev -o requirements.lock pyproject.toml clients/pyproject.toml

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find protos -name '*_pb2.py*' -delete
