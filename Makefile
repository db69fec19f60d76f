# make demo        set everything up and audit the demo data
# make test        set everything up and run the tests
# make quick       the tests that start no server, no browser, no other process and no audit, and are not dear
# make check       format, lint, types and tests: the whole gate
# make dashboard   review the demo's flagged rows
# make ui          open the demo's audits in MLflow
# make docs        the docs site, in build/site
# make lock        pin what is installed, with hashes, after a change of pyproject.toml or constraints.txt
# make sbom        a bill of materials of the release
# make newest      the tests that talk to other packages, with the newest versions that are allowed: prints what breaks

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := poisonwatch flows tasks dashboards benchmarks tests

# A file's tests stay together: they share what takes long to start. The longest come first (tests/conftest.py). Many wait, so four at a time keep two cores busy.
# On Linux one process imports and collects for all (tests/support/forks.py); elsewhere each does so itself.
ifeq ($(shell uname),Linux)
PARALLEL := --forks 4
PAIR := --forks 2
else
PARALLEL := --numprocesses 4 --dist loadfile --no-loadscope-reorder
PAIR := $(PARALLEL) --numprocesses 2
endif

# A process of an audit imports 7,000 modules. Where the environment forbids Python to keep what it compiles of them, as images of containers do,
# each process would compile them anew: 12 s of a processor.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick dear check format dashboard ui docs lock newest sbom clean

demo: $(STAMP)
	$(BIN)/poisonwatch demo poisonwatch-demo

test: $(STAMP)
	$(BIN)/pytest $(PARALLEL)

# Nothing waits, so two keep two cores busy.
quick: $(STAMP)
	$(BIN)/pytest $(PAIR) -m 'not starts and not dear'
	@echo 'Left out: what starts a server, a browser, another process or an audit, and what is dear. make test runs all.'

# Measures which tests are dear: tests/support/dear_tests.txt. On a machine that does nothing else, since there they take half.
dear: $(STAMP)
	POISONWATCH_MEASURE_TESTS=1 $(BIN)/pytest $(PAIR) -m 'not starts'

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(PARALLEL)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dashboard: $(STAMP)
	$(BIN)/poisonwatch dashboard poisonwatch-demo/audit.yaml

ui: $(STAMP)
	cd poisonwatch-demo && MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false DO_NOT_TRACK=true ../$(BIN)/mlflow ui --workers 1 --backend-store-uri sqlite:///mlflow.db

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# From pyproject.toml and constraints.txt, which people edit, what `make` and the container install.
lock:
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/python requirements/make_lock.py

# For every night, with other tests by `$(BIN)/python requirements/try_newest.py --all`. Writes requirements/newest.txt.
newest: $(STAMP)
	$(BIN)/python requirements/try_newest.py

# What a release consists of (CycloneDX): each package with its version and the hashes of its files.
SBOM := dist/poisonwatch.cdx.json
sbom: $(STAMP)
	mkdir -p $(dir $(SBOM))
	cat requirements/torch.txt requirements/service.txt | $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file $(SBOM) -

clean:
	rm -rf $(VENV) poisonwatch-demo build dist *.egg-info

# Every file is checked against its hash before it is installed. PyTorch first and alone, from what pip has offered: the build without CUDA has no
# hash at the index, and beside files with one pip would pass it over. Of 28,000 modules a run imports 7,000, many processes at the same moment: of
# the largest packages, what is imported is compiled ahead, on all cores; the rest as it is met.
COMPILED := great_expectations mlflow pandas prefect scipy sklearn sqlalchemy sympy torch transformers
SELDOM := /(_inductor|genai|models|testing|tests?)/
LOCKED := $(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes
$(STAMP): pyproject.toml constraints.txt $(wildcard requirements/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -rf $(VENV)/torch
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --dest $(VENV)/torch --constraint constraints.txt torch
	$(LOCKED) --no-index --find-links $(VENV)/torch --requirement requirements/torch.txt
	ls $(VENV)/torch/*+cpu* >/dev/null 2>&1 || $(LOCKED) --requirement requirements/torch-cuda.txt
	rm -r $(VENV)/torch
	$(LOCKED) --requirement requirements/development.txt
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q --workers 0 -x '$(SELDOM)' $(addprefix $(VENV)/lib/python*/site-packages/,$(COMPILED))
	touch $(STAMP)
