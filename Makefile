# Two commands are enough on a machine with Python 3.11 and the usual build tools: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo_out

.PHONY: help install demo test test-long check lint types imports demo-checkpoints clean

help:
	@echo "make demo    label generated clips with three small models, end to end (about 4 minutes, most of it the install)"
	@echo "make test    the default tests (under 10 minutes)"
	@echo "make test-long  the tests marked slow and chaos (under 40 minutes)"
	@echo "make check   lint, types, import contracts"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into $(VENV), versions pinned by constraints.txt (about 2 minutes) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/python jobs/demo.py --out $(DEMO_OUT)

test: install
	$(BIN)/python -m pytest -m "not slow and not chaos and not gpu"

test-long: install
	$(BIN)/python -m pytest -m "(slow or chaos) and not gpu"

check: lint types imports

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(DEMO_OUT) build dist .pytest_cache .mypy_cache .ruff_cache
