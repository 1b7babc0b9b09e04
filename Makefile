# Headrace: each command first sets up what it needs, given Python 3.11 or newer with pip, and git.
#
#   make demo      run the demonstration
#   make test      run the checks, then all tests; ARGS="-k pool" passes options to pytest
#   make check     linter, format, types and layers only
#   make fix       let the linter and the formatter mend what they can
#   make cover     run all tests and show which lines and branches they miss
#   make bench     run every benchmark, or one: make bench NAME=drain
#   make docs      write the tables in docs/ that are made from the code
#   make site      build the documentation site in site/; ARGS="--serve 8000" then serves it to this machine
#   make lock      renew requirements-dev.lock
#   make clean     remove what these commands made

.POSIX:
.SUFFIXES:
.PHONY: help demo test check fix cover bench docs site lock setup clean

VENV = .venv
BIN = $(VENV)/bin
LOCK = requirements-dev.lock
NAME = *
READY = $(VENV)/.headrace-ready

help:
	@sed -n 's/^#   //p' Makefile

demo: $(READY)
	@$(BIN)/headrace demo $(ARGS)

test: check
	@$(BIN)/python -m pytest $(ARGS)

# All four run, so that one go shows everything that is wrong; each is silent when it has nothing to say.
check: $(READY)
	@status=0; \
	$(BIN)/ruff check --quiet --output-format concise || status=1; \
	$(BIN)/ruff format --check --quiet --output-format concise || status=1; \
	$(BIN)/mypy --no-error-summary || status=1; \
	layers=$$($(BIN)/lint-imports --no-logo 2>&1) || { printf '%s\n' "$$layers"; status=1; }; \
	if [ $$status = 0 ]; then echo "headrace: lint, format, types and layers passed"; fi; \
	exit $$status

fix: $(READY)
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

cover: $(READY)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --quiet $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: $(READY)
	@for script in benchmarks/$(NAME).py; do \
		if [ -f "$$script" ]; then $(BIN)/python "$$script" $(ARGS) || exit 1; else echo "headrace: there is no $$script" >&2; exit 1; fi; \
	done

docs: $(READY)
	@$(BIN)/python -m tests.docs.pages
	@$(BIN)/python -m tests.deploy.tables

site: $(READY)
	@$(BIN)/python -m tests.docs.site $(ARGS)

# uv resolves for every platform and Python version at once; it is fetched into its own environment for this command only.
lock: $(READY)
	@$(BIN)/python -m venv $(VENV)/lock
	@$(VENV)/lock/bin/python -m pip --quiet --disable-pip-version-check install uv
	@$(VENV)/lock/bin/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--system-certs --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet -o $(LOCK)
	@echo "headrace: $(LOCK) renewed"

setup: $(READY)

$(READY): $(LOCK) pyproject.toml .ci/setup
	@PYTHON="$(PYTHON)" sh .ci/setup $(VENV) $(LOCK)
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist site .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/.envs
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
