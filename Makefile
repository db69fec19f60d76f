# make demo        set everything up and audit the demo data
# make test        set everything up and run the tests
# make check       format, lint, types and tests: the whole gate
# make dashboard   review the demo's flagged rows
# make ui          open the demo's audits in MLflow

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := poisonwatch flows tasks dashboards benchmarks tests

# A file's tests stay together: they share what takes long to start. The longest come first (tests/conftest.py). Many wait, so four at a time keep two cores busy.
PARALLEL := --numprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check format dashboard ui clean

demo: $(STAMP)
	$(BIN)/poisonwatch demo poisonwatch-demo

test: $(STAMP)
	$(BIN)/pytest $(PARALLEL)

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

clean:
	rm -rf $(VENV) poisonwatch-demo build dist *.egg-info

# PyTorch first and alone: resolved together with the rest, a newer release with CUDA libraries could be chosen.
# Nothing is compiled ahead: of 27,000 modules a run imports 7,000, and compiles these as it meets them.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)
