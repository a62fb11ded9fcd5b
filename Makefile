# Every target stands alone: the first one called on a fresh machine makes the environment.
#   make env PYTHON=/path/to/python3.12   choose the interpreter
#   make env SYSTEM_TORCH=1               keep a (CUDA) torch that is installed already
#   make test JOBS=8                      as many processes; each may take 3 GB
VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
STAMP  := $(VENV)/.made
# tests of one file stay in one process; one thread each, as there are as many processes as cores
JOBS   := 2
TESTS   = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -q -n $(JOBS) --dist loadfile

export PYTHON SYSTEM_TORCH

.DEFAULT_GOAL := help
.PHONY: help env tools demo test test-all lint bench docs clean

help:
	@echo "make env       the environment in $(VENV) (the others make it when it is missing)"
	@echo "make tools     programs some tests talk to (Orthanc, DCMTK, ...; Debian, as root); else these skip"
	@echo "make demo      the whole way on phantom patients, under five minutes"
	@echo "make test      the tests that take under a minute each"
	@echo "make test-all  all tests"
	@echo "make lint      ruff, pyright, import floors"
	@echo "make bench     the figures of benchmarks/RESULTS.md"
	@echo "make docs      the documentation in site/"
	@echo "make clean     removes the environment and caches; runs/ stays"

env: $(STAMP)

# asked for the system's torch while the environment was made without it: make it anew
ifeq ($(SYSTEM_TORCH),1)
ifeq ($(wildcard $(VENV)/.system-torch),)
.PHONY: $(STAMP)
endif
endif

$(STAMP): pyproject.toml constraints.txt .ci/make-env
	@.ci/make-env $(VENV)

tools:
	@.ci/system-tools

demo: $(STAMP)
	$(BIN)/medseg demo --run runs/demo

test: $(STAMP)
	$(TESTS) -m "not slow"

test-all: $(STAMP)
	$(TESTS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)
	$(PY) -c 'from importlinter.cli import lint_imports_command as floors; floors()'

bench: $(STAMP)
	$(PY) -m benchmarks

docs: $(STAMP)
	@$(PY) -c 'import material' 2>/dev/null || \
	  $(PY) -m pip --disable-pip-version-check --quiet install -c $(VENV)/constraints.txt -e '.[docs]'
	$(PY) -m mkdocs build --strict

clean:
	rm -rf $(VENV) site dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
