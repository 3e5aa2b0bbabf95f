# Two commands: `make demo` and `make test`. The README shows what they call.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test check

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/python train.py +experiment=gpt_tiny
	$(BIN)/python eval.py ckpt=runs/gpt_tiny

test: .venv/installed
	$(BIN)/python -m pytest -n 2

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
