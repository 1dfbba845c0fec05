# Two commands on a fresh machine: `make demo` and `make test`. Each builds what is missing.
# The first Python that is new enough; PYTHON=... names another one.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do $(NEW) 2>/dev/null && echo $$name && break; done)
NEW = $${name} -c 'import sys; sys.exit(sys.version_info < (3, 11))'
VENV := .venv
BIN := $(VENV)/bin
# The tests run in as many processes, of one thread each, the longest files first: see tests/conftest.py.
WORKERS ?= 2

.PHONY: demo test lint docs audit clean

# A fixed directory, so that the README can name what the demo leaves; an earlier demo is replaced.
demo: $(VENV)/installed
	$(BIN)/elslightning train experiment=digits hydra.run.dir=outputs/demo
	@echo "look first at outputs/demo/report.html"

# What Python compiles is kept, whatever the environment says: dozens of processes import the same.
test: $(VENV)/installed-dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation, in site/; it is read without a network.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

$(VENV)/bin/python:
	@name="$(PYTHON)"; test -n "$$name" && $(NEW) || \
		{ echo "Python 3.11 or later is needed, not '$$name': name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Known weaknesses of what is installed; needs a registry that knows of them.
audit: $(VENV)/installed
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
