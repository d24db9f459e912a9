# make reproduce · make test · make docs · make lab · make bench · make lock
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
JOBS ?= 2
ARGS ?=

.PHONY: help install reproduce test docs lab bench lock export check clean

help:
	@echo "make reproduce   rebuild every figure and table, compare them with the paper; train two synthetic participants"
	@echo "make test        run all tests (notebooks and pytest)"
	@echo "make docs        the documentation site under _docs/, without a network; its links are checked"
	@echo "make lab         open JupyterLab"
	@echo "make bench       time our functions against plain loops, in the same run"
	@echo "make export      clean the notebooks, export them to facecomp/, remake README.md"
	@echo "make check       what must hold before a commit: no diff after export, ruff"
	@echo "make lock        resolve pyproject.toml into requirements.lock"

install: $(READY)

# uv when it can be had (seconds), pip otherwise (a minute or two): the same hashes either way
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "facecomp needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) -m venv failed: on Debian and Ubuntu install the package python3-venv"; exit 2; }
	@echo "installing the locked packages into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true
	@if $(BIN)/python -m uv --version >/dev/null 2>&1 && \
		$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock; then :; \
	else $(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock; fi
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

reproduce: $(READY)
	$(BIN)/facecomp reproduce --jobs $(JOBS) $(ARGS)
	@echo; echo "Two synthetic participants: models trained and analysed, and the paper's figures drawn from them"
	$(BIN)/facecomp batch nbs/psm/run_cohort.ipynb
	$(BIN)/facecomp figures psm --source runs --results-dir results/synthetic/psm_cohort/results --out figures/own --jobs $(JOBS)

test: $(READY)
	$(BIN)/python tests/run_notebooks.py --jobs $(JOBS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-report=term --cov-fail-under=90 $(ARGS)

# PATH: nbdev's and Sphinx's programs are those of the environment
docs: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m facecomp.site.build --out _docs --jobs $(JOBS)

lab: $(READY)
	$(BIN)/jupyter lab nbs/index.ipynb

export: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_clean
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_export
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/make_readme.py

check: export
	@git diff --exit-code --stat -- nbs facecomp README.md || \
		{ echo "nbdev_clean, nbdev_export or the README left the diff above: commit it"; exit 1; }
	$(BIN)/ruff check facecomp tests

bench: $(READY)
	@for file in bench/*.py; do name=$$(basename $$file .py); echo "$$file"; \
		OMP_NUM_THREADS=1 $(BIN)/python $$file | tee bench/results/$$name.md; done

lock: $(READY)
	$(BIN)/python -m uv pip compile pyproject.toml --extra dev --universal --generate-hashes \
		--python-version 3.11 --upgrade --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) _docs _proc build/site results/published results/synthetic figures/*.html figures/*/page.json
