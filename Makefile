# Two commands are enough on a machine with Python 3.11 and the usual build tools: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
ORACLE := .venv-oracle
BIN := $(VENV)/bin
DEMO_OUT ?= demo_out

.PHONY: help install demo test test-long test-oracle check lint types imports demo-checkpoints clean

help:
	@echo "make demo    label generated clips with three small models, end to end (about 4 minutes, most of it the install)"
	@echo "make test    the default tests (under 10 minutes)"
	@echo "make test-long  the tests marked slow and chaos (under 40 minutes)"
	@echo "make test-oracle  models against pytorchvideo and torchvision, in an environment of their own"
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

demo-checkpoints: install
	$(BIN)/python configs/demo/rebuild_checkpoints.py

test: install
	$(BIN)/python -m pytest -m "not slow and not chaos and not gpu"

test-long: install
	$(BIN)/python -m pytest -m "(slow or chaos) and not gpu"

# Tests against reference implementations that must not lie beside the package: torchvision's wheel breaks transformers'
# vision imports on a CPU-only torch. Their environment borrows everything else from the main one.
test-oracle: install
	test -x $(ORACLE)/bin/python || $(BIN)/python -m venv $(ORACLE)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $(ORACLE)/purelib.txt
	cp $(ORACLE)/purelib.txt "$$($(ORACLE)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
	$(ORACLE)/bin/pip install --quiet --disable-pip-version-check --no-deps -r constraints-oracle.txt
	$(ORACLE)/bin/python -m pytest -m "not slow and not gpu" -k "pytorchvideo or r3d or mc3 or r2plus1d or mvit or swin or s3d" \
		tests/models/test_pytorchvideo_parity.py tests/contracts/test_models.py tests/models/test_published_sizes.py

check: lint types imports

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(ORACLE) $(DEMO_OUT) build dist .pytest_cache .mypy_cache .ruff_cache
