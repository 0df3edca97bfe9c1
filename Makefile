# make demo       install into .venv and run the pocket pipeline (examples/pocket.sh)
# make test       install into .venv and run all checks and tests
# make test-fast  the unit tests without the slow ones: under 90 seconds on two cores
# make check      linters, types, layers, dead code
# make coverage   all tests with line coverage, as text and as coverage/index.html
# make docs       the documentation site, in site/

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: demo test test-fast check coverage docs install constraints clean

install: $(STAMP)

# The constraints record the tested set; pip takes exactly these versions where it can.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("priorkit needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	touch $(STAMP)

demo: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" bash examples/pocket.sh pocket

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/vulture

test: check
	$(PYTEST)

test-fast: $(STAMP)
	$(PYTEST) -m "not slow" tests/unit

coverage: $(STAMP)
	$(PYTEST) --cov priorkit --cov-report term:skip-covered --cov-report html:coverage

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/mkdocs build --strict

constraints: $(STAMP)
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean:
	rm -rf pocket site coverage .coverage .pytest_cache .ruff_cache
