# Two commands: `make demo` and `make test`. The README shows what they call.
# `make attack` (tests/attacks/README.md) and `make long` take an hour.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test check attack long

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip  # that of Python 3.11 takes 6 minutes to resolve
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/python train.py +experiment=gpt_tiny
	$(BIN)/python eval.py ckpt=runs/gpt_tiny
	rm -f runs/dream.html
	$(BIN)/python -m worldmodel.drive ckpt=runs/gpt_tiny export=runs/dream.html

test: .venv/installed
	$(BIN)/python -m pytest -n 2

attack: .venv/installed
	$(BIN)/python -m pytest -n 2 -m attack

long: .venv/installed
	$(BIN)/python -m pytest -n 2 -m long

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
