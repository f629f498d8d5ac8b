# predictd: `make run` serves a real model, `make test` proves that it works. Needs Python >= 3.11, make and git.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The connections in C: built where a compiler and its libraries are, and left out where they are not.
NATIVE := $(VENV)/.native
C_PART := $(shell find server/native -name '*.c' -o -name '*.h' -o -name '*.py' -o -name '*.pyi' -o -name meson.build) server/native/pyproject.toml
AUDIT  := .venv-audit
PROTOS := $(shell find protos -name '*.proto')

# Not the working directory, which has folders named like packages, but what is installed is imported.
export PYTHONSAFEPATH := 1
export ORT_DISABLE_TELEMETRY := 1

.PHONY: run test test-gpu check bench simulate soak soak-native docs lock locks wheel audit sbom install uninstall clean

run: $(NATIVE)
	$(BIN)/predictd demo $(ARGS)

test: $(NATIVE)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not soak and not gpu' $(ARGS)

# On a machine with an NVIDIA GPU, after .venv/bin/pip install 'tensorrt' 'pycuda' 'cuda-bindings'.
test-gpu: $(NATIVE)
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(NATIVE)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/typing/canary.py

bench: $(NATIVE)
	PYTHONPATH=. $(BIN)/python -m tests.bench $(ARGS)

# Schedules of a simulated daemon: ARGS='--count 10000', or one again: ARGS='--seed 7'.
simulate: $(STAMP)
	PYTHONPATH=. $(BIN)/python -m tests.simulation $(ARGS)

SOAK := $(BIN)/python -m pytest --timeout 3600 -o faulthandler_timeout=0

# Hours: what is long, and then everything that starts a daemon with the front end in C. ARGS choose among the first.
soak: $(NATIVE)
	$(SOAK) -m soak $(ARGS)
	$(if $(ARGS),,@$(MAKE) --no-print-directory soak-native)

soak-native: $(NATIVE)
	@if $(BIN)/python -c 'import predictd.native' 2>/dev/null; then \
	  PREDICTD_FRONTEND=native $(SOAK) -m 'not gpu' $(if $(ARGS),$(ARGS),tests/deploy tests/faults tests/fuzz/test_wire.py tests/processes); \
	else \
	  echo 'The front end in C could not be built here: nothing was tried with it.' >&2; \
	fi

# Writes the tables of docs/configuration.md and docs/metrics.md anew.
docs: $(STAMP)
	PYTHONPATH=. $(BIN)/python -m tests.unit.docs.test_tables

# What a machine serves from: an environment of its own, units of systemd, a configuration file. Settable: PREFIX,
# SYSCONFDIR, DESTDIR, PYTHON, and WHEELHOUSE, a folder of wheels to take instead of an index.
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
export PREFIX SYSCONFDIR DESTDIR PYTHON WHEELHOUSE

install:
	@deploy/install install

uninstall:
	@deploy/install uninstall

# The environment is made from the lock file alone: names, versions and hashes, from whatever index pip is set up for.
$(STAMP): pyproject.toml clients/pyproject.toml requirements.lock hatch_build.py $(PROTOS)
	@command -v $(PYTHON) >/dev/null || { echo 'predictd needs Python 3.11 or newer: apt-get install python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "predictd needs Python 3.11 or newer, $(PYTHON) is `$(PYTHON) -V`: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "predictd needs the venv module of $(PYTHON): apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo 'Installing into $(VENV), once ...'; $(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e clients -e .
	@$(BIN)/python hatch_build.py
	@touch $@

# Tried anew by each make as long as it cannot be had. One of older sources must not stay.
$(NATIVE): $(STAMP) $(C_PART) deploy/make_native_wheel
	@rm -f $@
	@if deploy/make_native_wheel $(BIN) $(VENV)/native; then \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-index --force-reinstall $(VENV)/native/*.whl && touch $@; \
	elif $(BIN)/python -c 'import predictd.native' 2>/dev/null; then \
	  $(BIN)/pip uninstall --quiet --disable-pip-version-check --yes predictd-native; \
	fi

# A wheel for other machines with the same C library or a newer one: it brings libnghttp2 and OpenSSL along.
wheel: $(STAMP)
	@test -x $(BIN)/auditwheel || $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-wheel.lock
	@deploy/make_native_wheel $(BIN) $(VENV)/native
	@rm -f dist/predictd_native-*.whl
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair -w dist $(VENV)/native/*.whl >$(VENV)/native/repair.log 2>&1 || { \
	  cat $(VENV)/native/repair.log >&2; exit 1; }
	@ls dist/predictd_native-*.whl

# Versions and hashes without the address of an index. uv takes its own from UV_DEFAULT_INDEX.
# openvino-telemetry, which openvino requires, is left out: it reports.
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

lock: $(STAMP)
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-uv.lock
	$(BIN)/uv pip compile $(LOCK) --upgrade \
	  --no-emit-package predictd-client --no-emit-package openvino-telemetry --extra demo --group dev -o requirements.lock pyproject.toml clients/pyproject.toml
	@$(MAKE) --no-print-directory locks

# Of the same versions: what runs the daemon, what builds its wheels, and what makes them fit for other machines.
locks: $(STAMP)
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-uv.lock
	$(BIN)/uv pip compile $(LOCK) -c requirements.lock --no-emit-package predictd-client --extra demo \
	  -o requirements-daemon.lock pyproject.toml clients/pyproject.toml
	$(BIN)/uv pip compile $(LOCK) -c requirements.lock --group build --group native -o requirements-build.lock
	$(BIN)/uv pip compile $(LOCK) -c requirements.lock --group wheel -o requirements-wheel.lock
	$(BIN)/uv pip compile $(LOCK) --group audit -o requirements-audit.lock

# Whether a vulnerability of what the daemon runs on is known, and what that is, as CycloneDX. ARGS='-s osv' asks another database.
audit: $(AUDIT)/.installed
	@said=`mktemp` && trap 'rm -f $$said' EXIT && \
	if $(AUDIT)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes \
	  -r requirements-daemon.lock $(ARGS) >$$said 2>&1; then cat $$said; \
	elif grep -qE 'could not be audited|ConnectionError|ServiceError' $$said; then \
	  echo 'make audit: the database of vulnerabilities cannot be asked from here, so nothing is known' >&2; exit 2; \
	else cat $$said >&2; exit 1; fi

sbom: $(AUDIT)/.installed
	@mkdir -p dist
	@$(AUDIT)/bin/python -W ignore -m cyclonedx_py requirements requirements-daemon.lock --pyproject pyproject.toml \
	  --output-reproducible --of JSON -o dist/predictd.cdx.json
	@echo dist/predictd.cdx.json

$(AUDIT)/.installed: requirements-audit.lock
	@test -x $(AUDIT)/bin/pip || $(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-audit.lock
	@touch $@

clean:
	rm -rf $(VENV) $(AUDIT) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find protos -name '*_pb2.py' -delete -o -name '*_pb2.pyi' -delete
	find protos server engines clients tests -name __pycache__ -prune -exec rm -rf {} +
