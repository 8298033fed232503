# The commands of this repository. `make demo` and `make test` need nothing done before them.

PY := .venv/bin/python
PACKAGES := -p ai_infra -p ai_infra_trainer -p ai_infra_registry -p ai_infra_promoter -p ai_infra_canary -p ai_infra_indexer

# What was compiled is kept, whatever the shell says: else each process of the stack compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo down test lint unit bench soak train-smoke pin clean

help:
	@echo 'make demo         the main job, end to end, on real data; leaves the stack and the services up'
	@echo 'make down         stop everything that was started here'
	@echo 'make test         lint, types and all tests on a real stack (about eleven minutes on two cores)'
	@echo 'make unit         the tests that need no stack (seconds)'
	@echo 'make lint         ruff, mypy, dependencies between rooms, stale generated code, secrets'
	@echo 'make soak         the long variants of the fault tests, and a long search for what breaks a property'
	@echo 'make bench        measure; prints a table and writes JSON to benchmarks/out/'
	@echo 'make train-smoke  one small training, recorded with its manifest'
	@echo 'make setup        only make .venv'
	@echo 'make pin          take the newest packages that pyproject.toml allows (needs uv)'
	@echo 'make clean        stop everything and delete .venv and all data of the stacks; downloads are kept'

setup:
	@python=; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'This needs Python 3.11 or newer, and none was found: install it, or say where it is, `make PYTHON=/path/to/python3.12 …`' >&2; exit 1; \
	fi; \
	$$python .ci/setup.py

demo: setup
	@$(PY) examples/demo/run.py

down:
	@if [ -x $(PY) ]; then $(PY) -m ai_infra.cli.main dev down --all; else echo 'Nothing was ever started here.'; fi

# In tests a word may stand for a password, so there only what looks like a key counts as a secret.
lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy $(PACKAGES)
	@.venv/bin/lint-imports
	@$(PY) -m ai_infra.events.generate --check
	@git ls-files -z -- ':!tests' | xargs -0 -n 250 -P 2 .venv/bin/detect-secrets-hook --baseline .secrets.baseline
	@git ls-files -z -- tests | xargs -0 -n 250 -P 2 .venv/bin/detect-secrets-hook --baseline tests/.secrets.baseline

unit: setup
	@$(PY) -m pytest tests/unit -n auto

# System tests mostly wait for a real broker, so four workers, each with a stack of its own (about 1 GB), take a third of
# the time. Faults get emptied stacks: what system tests said is no part of their reckoning. The last thing it prints is
# pytest's own summary.
test: lint
	@$(PY) -m pytest tests/unit -n auto -q
	@$(PY) -m ai_infra.cli.main dev fetch
	@$(PY) -m pytest tests/conformance tests/system -n 4 --dist loadfile
	@$(PY) -m pytest tests/faults -n 2 --dist loadfile

soak: setup
	@SOAK=1 $(PY) -m pytest tests/unit -n auto -q --timeout 3600
	@$(PY) -m ai_infra.cli.main dev fetch
	@SOAK=1 $(PY) -m pytest tests/conformance tests/system -n 4 --dist loadfile --timeout 3600
	@SOAK=1 $(PY) -m pytest tests/faults -n 2 --dist loadfile --timeout 3600

bench: setup
	@$(PY) -m benchmarks.run

train-smoke: setup
	@$(PY) -m ai_infra.cli.main train --record --job examples/digits/job.json --manifest-out .ai-infra/smoke/manifest.json

pin:
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header --upgrade --extra dev pyproject.toml requirements/build.in -o requirements/dev.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header --upgrade --constraint requirements/dev.txt --extra trainer --extra registry --extra promoter --extra canary --extra indexer \
	  --extra cli --extra traces pyproject.toml requirements/build.in -o requirements/services.txt

clean: down
	@for state in .ai-infra/*/state.json; do \
	  [ -f "$$state" ] || continue; $(PY) -m ai_infra.cli.main dev reset --yes --name "$$(basename "$$(dirname "$$state")")"; \
	done
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
