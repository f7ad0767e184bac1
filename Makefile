# Two commands do all: `make nightly` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help

# An interpreter of version 3.11, on which both environments are built.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(firstword $(shell command -v python3.11 python3 python 2>/dev/null) python3.11)
endif
# Warehouse to label; empty means a generated sample.
ROOT ?=
# Day to label, YYYY-MM-DD.
DS ?=
# Pinned requirements of the jobs; name your own file for a CPU-only torch from your index.
JOBS_LOCK ?= requirements/jobs.txt
# Clicks of the generated sample.
CLICKS ?= 320000
# Of Airflow's web interface on the loopback (make airflow), and who runs it where root calls.
PORT ?= 8080
ACCOUNT ?= nobody
# Tests that run side by side, each with a Spark session of 2 GB.
TEST_WORKERS ?= 2
# Debian keeps PostgreSQL's programs off the PATH.
DEBIAN_POSTGRESQL ?= /usr/lib/postgresql
# Of which object store jars are fetched (make store-jars): s3a or abfs.
STORE ?= s3a
# Of make bench: Home Depot's directory, for what is measured on it; questions by name (empty: all); further flags.
DATA ?= ../shared/data/homedepot
ONLY ?=
BENCH ?=

SAMPLE_ROOT := $(CURDIR)/warehouse/sample
SAMPLE_DS := 2024-05-07

# What is given reaches a recipe through its environment, where "$$ROOT" is one word whatever it holds, and as it was typed:
# a $(...) in it is none of make's. Written into a recipe as $(ROOT) it would be read as a part of the command.
GIVEN := PYTHON ROOT DS JOBS_LOCK CLICKS PORT ACCOUNT TEST_WORKERS DEBIAN_POSTGRESQL STORE DATA ONLY BENCH
$(foreach name,$(GIVEN),$(if $(filter command environment,$(origin $(name))),$(eval override $(name) := $$(value $(name)))))
export $(GIVEN) SAMPLE_ROOT SAMPLE_DS

BIN := $(CURDIR)/.venv/bin
UV := $(CURDIR)/.venv-uv/bin/uv
AIRFLOW_BIN := $(CURDIR)/.venv-airflow/bin
BENCHMARKS_BIN := $(CURDIR)/.venv-benchmarks/bin
export AIRFLOW_HOME := $(CURDIR)/build/airflow
export AIRFLOW__CORE__DAGS_FOLDER := $(CURDIR)/airflow_dags
export AIRFLOW__CORE__LOAD_EXAMPLES := False

.PHONY: help setup bench benchmarks-setup system-packages preflight nightly airflow label sample wheel doctor tables test test-slow lint types format
.PHONY: lock clean test-hosts test-spark store-jars faults

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 18
	@echo
	@echo "Variables: ROOT=warehouse DS=YYYY-MM-DD CLICKS=size of the sample PYTHON=interpreter"

# ---------------------------------------------------------------- set-up

preflight:
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "set-up: $$PYTHON is $$("$$PYTHON" --version 2>&1 | head -1), but Python 3.11 is needed: install it and say where it is, as in 'make setup PYTHON=/usr/bin/python3.11'." >&2; exit 2; }
	@command -v java >/dev/null || { \
	  echo "set-up: no java on the PATH, but Spark needs Java 17: install a JDK or JRE of version 17 (Debian: openjdk-17-jre-headless) and put its bin directory on the PATH." >&2; exit 2; }
	@java -version 2>&1 | grep -qE 'version "17\.' || { \
	  echo "set-up: java is $$(java -version 2>&1 | head -1), but Spark needs Java 17: put the bin directory of a version 17 first on the PATH." >&2; exit 2; }

setup: .venv/.ready .venv-airflow/.ready  ## Install everything that the jobs and Airflow need (other targets do it by themselves)

.venv-uv/.ready: | preflight
	@echo "set-up: installer"
	@"$$PYTHON" -m venv .venv-uv
	@.venv-uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	@touch $@

.venv/.ready: $(JOBS_LOCK) setup.py | .venv-uv/.ready preflight
	@echo "set-up: the jobs' environment in .venv (7 GB, about a minute from a near index)"
	@$(UV) venv --quiet --allow-existing --python "$$PYTHON" .venv
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python "$$JOBS_LOCK"
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@echo "set-up: Delta's jars"
	@$(BIN)/python -m etl.jars
	@echo "set-up: an archive of the classes that Spark loads"
	@$(BIN)/python -m etl.class_archive
	@echo "set-up: DeepSpeed's CPU collectives"
	@$(BIN)/python -m model.warm_up
	@touch $@

.venv-airflow/.ready: requirements/airflow.txt | .venv-uv/.ready preflight
	@echo "set-up: Airflow's own environment in .venv-airflow"
	@$(UV) venv --quiet --allow-existing --python "$$PYTHON" .venv-airflow
	@$(UV) pip sync --quiet --compile-bytecode --python $(AIRFLOW_BIN)/python requirements/airflow.txt
	@mkdir -p $(AIRFLOW_HOME)
	@{ $(AIRFLOW_BIN)/airflow db migrate && $(AIRFLOW_BIN)/airflow pools import airflow_dags/pools.json; } \
	  >$(AIRFLOW_HOME)/migrate.log 2>&1 || { tail -20 $(AIRFLOW_HOME)/migrate.log; exit 1; }
	@touch $@

system-packages:  ## Install the Debian packages that `make airflow` and the tests of many machines and of the report need; as root
	@PATH="$$PATH:$$(printf '%s:' "$$DEBIAN_POSTGRESQL"/*/bin)"; \
	for program in pdsh sshd ip ssh initdb chromium; do command -v $$program >/dev/null || missing=1; done; \
	if [ -n "$$missing" ]; then \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends pdsh openssh-server openssh-client iproute2 postgresql chromium >/dev/null; \
	fi

store-jars: setup  ## Fetch Spark's jars for tables on S3 (STORE=abfs: on Azure)
	@$(BIN)/python -m etl.jars "$$STORE"

benchmarks-setup: setup .venv-benchmarks/.ready  ## Install what is compared with and is not ours: sentence-transformers, OpenVINO, ONNX Runtime

.venv-benchmarks/.ready: requirements/benchmarks.txt | .venv-uv/.ready preflight
	@echo "set-up: sentence-transformers and other engines in an environment of their own, .venv-benchmarks"
	@$(UV) venv --quiet --allow-existing --python "$$PYTHON" .venv-benchmarks
	@$(UV) pip sync --quiet --compile-bytecode --python $(BENCHMARKS_BIN)/python requirements/benchmarks.txt
	@touch $@

lock: .venv-uv/.ready  ## Refresh the pinned requirements from the .in files
	$(UV) pip compile --quiet --upgrade --python-version 3.11 requirements/jobs.in -o requirements/jobs.txt
	$(UV) pip compile --quiet --upgrade --python-version 3.11 requirements/airflow.in -o requirements/airflow.txt
	$(UV) pip compile --quiet --upgrade --python-version 3.11 requirements/benchmarks.in -o requirements/benchmarks.txt

# ---------------------------------------------------------------- running

# One attempt only: a person who watches wants the error now, not after five minutes.
nightly: export LABELLER_RETRIES ?= 0
# Airflow's one-process runner watches no deadline, and fails at a DAG with one.
nightly: export LABELLER_DEADLINE_HOURS ?= 0
nightly: setup  ## Run the nightly DAG for one day: of ROOT and DS, or of a generated sample
	@if [ -n "$$ROOT" ] && [ -z "$$DS" ]; then echo "nightly: say which day to label, as in 'make nightly ROOT=$$ROOT DS=$$SAMPLE_DS'." >&2; exit 2; fi
	@$(BIN)/python -c 'import json, os; given = os.environ; root = given["ROOT"] or given["SAMPLE_ROOT"]; \
	  print(json.dumps({"root": root if "://" in root else os.path.abspath(root), "ds": given["DS"] or given["SAMPLE_DS"], \
	  "sample": not given["ROOT"], "sample_clicks": int(given["CLICKS"])}))' >build/nightly.json
	@started=$$SECONDS; \
	$(AIRFLOW_BIN)/airflow dags test nightly_labeling --conf "$$(cat build/nightly.json)" 2>&1 \
	  | tee build/nightly.log | sed -unEf airflow_dags/readable.sed; \
	echo; echo "nightly run finished in $$((SECONDS - started)) s; Airflow's whole log: build/nightly.log"

airflow: setup  ## Start a whole Airflow (PORT, ROOT) until Ctrl-C: scheduler, web interface on the loopback, PostgreSQL
	@export LABELLER_ROOT="$${ROOT:-$$SAMPLE_ROOT}"; \
	case "$$LABELLER_ROOT" in /* | *://*) ;; *) LABELLER_ROOT="$$PWD/$$LABELLER_ROOT" ;; esac; \
	exec $(AIRFLOW_BIN)/python -m airflow_dags.stack --port="$$PORT" --account="$$ACCOUNT"

sample: setup  ## Generate the sample warehouse (CLICKS, ROOT)
	@mkdir -p -- "$${ROOT:-$$SAMPLE_ROOT}"
	@$(BIN)/labeller sample --root="$${ROOT:-$$SAMPLE_ROOT}" --clicks="$$CLICKS"

tables: setup  ## List the output tables with their row counts, as an independent reader sees them
	@$(BIN)/labeller tables --root="$${ROOT:-$$SAMPLE_ROOT}"

wheel: setup  ## Pack our code for a cluster's executors: build/labeller.zip for --py-files, and the same as a wheel
	@rm -rf build/lib build/*.whl build/labeller.zip
	@$(BIN)/python -c 'import setuptools.build_meta as b; b.build_wheel("build")' >build/wheel.log 2>&1 || { cat build/wheel.log >&2; exit 1; }
	@cp build/nightly_product_labeller-*.whl build/labeller.zip
	@ls build/*.whl build/labeller.zip

doctor: setup  ## Check Java, jars, versions, GPU, disk and paths
	@$(BIN)/labeller doctor --root="$${ROOT:-$$SAMPLE_ROOT}"

bench: benchmarks-setup  ## Every question of speed beside what a user would pick instead (ONLY, DATA; BENCH=--dry-run says what): docs/bench/
	@set -f; $(BIN)/python -m benchmarks.bench --data="$$DATA" $${ONLY:+--only $$ONLY} $$BENCH

# ---------------------------------------------------------------- checking

test: setup lint types  ## Run all tests that take less than half an hour together, cheap ones first
	@$(BIN)/pytest -m "not slow" --numprocesses "$$TEST_WORKERS" --dist loadfile --no-loadscope-reorder tests

test-hosts: setup  ## Run the slow tests of training: several hosts, ranks that die or change in number, four ranks
	@$(BIN)/pytest -m slow tests/test_model_many_nodes.py tests/test_model_resize.py tests/test_model_resume.py \
	  tests/test_model_loss.py tests/test_run_at_scale.py

test-spark: setup store-jars  ## Run the slow tests of Spark jobs: whole labelling nights, backfills, a cluster of two workers, a store
	@$(BIN)/pytest -m slow tests/test_etl_*.py tests/test_labeling_*.py

test-slow: setup store-jars  ## Run the slow tests
	@$(BIN)/pytest -m slow tests

faults: setup store-jars  ## Inject every fault of docs/faults.md; cut off, it goes on with what has not passed
	@$(BIN)/pytest -p tests.resume -m fault tests

lint: setup  ## Check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup  ## Check types
	@$(BIN)/mypy

format: setup  ## Rewrite to the house format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean:  ## Remove environments, sample warehouse and build files
	rm -rf .venv .venv-uv .venv-airflow .venv-benchmarks build warehouse/sample
