# Everything on a bare machine with Python 3.10 or newer:
#   make demo   solves configs/darcy.yaml and says where the picture and the report are
#   make test   runs the tests
#   make docs   builds the documentation into site/, with warnings as errors
#   make notebooks   runs the notebooks from nothing
#   make mutants   puts some thirty faults into the code, one by one, and says whether the tests catch them
#   make attack   hostile specs, meshes, systems, files, kills: under an hour, goes on where it stopped
#   make oldest   the tests with the oldest Python and packages allowed, in .oldest
#   make test-interop   opens our datasets with The Well's, xarray's and neuraloperator's readers
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What a file of tests makes for all of them is made once where one process runs the whole file.
SHARED := --dist loadfile
# Twice as many threads as cores is slower than one thread in each of the test processes.
THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1
WORKERS ?= 2

.PHONY: demo test mutants attack oldest test-interop docs notebooks lint clean

demo: $(VENV)/installed
	$(BIN)/sciml solve configs/darcy.yaml --out runs/darcy

test: $(VENV)/developer
	$(THREADS) $(BIN)/python -m pytest -n $(WORKERS) $(SHARED) $(PYTEST)

mutants: $(VENV)/developer
	$(BIN)/python tests/mutants.py

# Its journal lies in runs/attack: without that folder it begins anew.
attack: $(VENV)/developer
	$(BIN)/python benchmarks/attack.py $(ATTACK)

# The lower bounds of pyproject.toml, on the oldest Python. PyTorch of that age has no wheel for
# processors alone at PyPI, so that this downloads some 2 GB.
OLDEST_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python) python3.10)
oldest: .oldest/installed
	$(THREADS) .oldest/bin/python -m pytest -n $(WORKERS) $(SHARED) $(PYTEST)

.oldest/installed: pyproject.toml constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv .oldest
	.oldest/bin/python -m pip install --quiet -c constraints-oldest.txt -e . \
	  pytest pytest-xdist hypothesis xarray h5netcdf markdown mkdocs latex2mathml
	@touch $@

INTEROP := tests/interop
test-interop: $(VENV)/developer
	PYTHON=$(PYTHON) $(INTEROP)/make_env.sh the_well
	PYTHON=$(PYTHON) $(INTEROP)/make_env.sh neuraloperator
	rm -rf runs/interop
	$(BIN)/python $(INTEROP)/dataset.py runs/interop
	.peers/the_well/bin/python $(INTEROP)/with_the_well.py runs/interop
	.peers/neuraloperator/bin/python $(INTEROP)/with_neuraloperator.py runs/interop

# NO_MKDOCS_2_WARNING: its authors' advertisement is no warning about these pages.
docs: $(VENV)/developer
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: $(VENV)/developer
	rm -rf runs/notebooks
	$(THREADS) $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks

lint: $(VENV)/developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p sciml

clean:
	rm -rf $(VENV) build dist site *.egg-info runs

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than Python 3.10: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/developer: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/installed
