# A fresh machine needs Python 3.11 or newer, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types check check-project coverage dist smoke local docs docs-links benchmark \
	mutants soak clean

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "dynamo-stores needs Python 3.11 or newer; this is %d.%d. Name another: make PYTHON=python3.12 …" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

## make demo [CHECK=1]: the forum on an embedded DynamoDB, with worker, beat and web server
demo: $(STAMP)
	@$(BIN)/python manage.py forum_demo $(if $(CHECK),--check)

## make test [ARGS=tests/cache] [WORKERS=1]: the tests, in parallel because they wait more than they
## compute; tests that need Redis or Chromium are skipped where it is missing
WORKERS ?= 5
test: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

## make lint, make types: ruff and the import layers; mypy
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

## make check: linters, types, deployment checks and tests
check: lint types check-project test

check-project: $(STAMP)
	$(BIN)/python manage.py makemigrations --check --dry-run
	AWS_REGION=us-east-1 SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))') \
		$(BIN)/python -W error manage.py check --deploy --fail-level WARNING

## make coverage [ARGS=tests/cache]: the tests, with the coverage of dynamo_stores
coverage: $(STAMP)
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report= --cov-fail-under=0 $(ARGS)
	@$(BIN)/python -m coverage report

## make dist: wheel and sdist in dist/, checked, and installed in an empty environment
dist: $(STAMP)
	@$(BIN)/python .ci/dist.py

## make smoke [ENDPOINT=http://127.0.0.1:8000]: everything once, on tables that are removed; on an
## embedded engine, or a DynamoDB on this machine. AWS=1: in an account at AWS, after its number was
## typed or given as SMOKE_CONSENT, for less than a cent. LEFTOVERS=list, LEFTOVERS=remove: the
## tables of runs that were killed
smoke: $(STAMP)
	@$(BIN)/python -m tests.smoke $(if $(AWS),--aws) $(if $(ENDPOINT),--endpoint $(ENDPOINT)) \
		$(if $(LEFTOVERS),--leftovers $(LEFTOVERS))

## make local: a DynamoDB for development on 127.0.0.1:8400
local: $(STAMP)
	@$(BIN)/python manage.py dynamo_local

## make docs: the site of docs/ in docs/_build/html; a warning is an error
docs: $(STAMP)
	$(BIN)/sphinx-build --quiet --fail-on-warning --nitpicky --fresh-env docs docs/_build/html

## make docs-links: asks every address in docs/ whether it is there; needs the network
docs-links: $(STAMP)
	$(BIN)/sphinx-build --quiet --builder linkcheck docs docs/_build/links

## make benchmark [ARGS="--operation get"]: clients against a bare boto3 client, a few minutes
benchmark: $(STAMP)
	@$(BIN)/python manage.py dynamo_benchmark --engine canned --rounds 11 --calls 60 $(ARGS)

## make mutants: mutation testing of the pure modules, about ten minutes; needs no engine
mutants: $(STAMP)
	TEST_DYNAMODB_ENDPOINT=http://127.0.0.1:9 $(BIN)/mutmut run
	$(BIN)/mutmut results

## make soak [SECONDS=600] [SEED=…]: the stores under faults, lag, kills and interruptions
SECONDS ?= 600
soak: $(STAMP)
	@SOAK_SECONDS=$(SECONDS) SOAK_SEED=$(SEED) $(BIN)/python -m pytest -s tests/soak

clean:
	rm -rf $(VENV) .data build dist docs/_build mutants *.egg-info
