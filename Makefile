# Two commands from a bare machine with Python: `make demo` and `make test`. Each makes its own .venv.
# Another interpreter: `make test PYTHON=python3.12`.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= runs/demo
BIN := $(VENV)/bin
TF_MINOR := from importlib.metadata import version; print(version("tensorflow").rpartition(".")[0])
# Stubs of TensorFlow Serving's protocol. Their own requirements would change the TensorFlow that is there. Where there
# are none for it (yet), make goes on and the tests that need them are skipped.
SERVING_API = $(BIN)/python -m pip install --no-deps "tensorflow-serving-api==$$($(BIN)/python -c '$(TF_MINOR)').*"
REQUIREMENTS := setup.py requirements.txt hetmorph/version.py

.PHONY: demo test test-slow lint format docs clean

demo: $(VENV)/.installed
	$(BIN)/python training/train.py --config training/configs/demo.yaml --out $(DEMO) --resume
	@echo "picture: $(DEMO)/report.png; SavedModel: $(DEMO)/saved_model/1"

test: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist worksteal

test-slow: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	PDOC_ALLOW_EXEC=1 $(BIN)/python -m pdoc --docformat google --no-show-source --output-directory build/docs hetmorph
	@echo "API reference: build/docs/index.html"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

# The stamps remember that an installation succeeded, so that it is repeated only when requirements change.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(BIN)/python $(REQUIREMENTS)
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/.installed-tests: $(BIN)/python $(REQUIREMENTS)
	$(BIN)/python -m pip install --editable ".[tests]"
	-$(SERVING_API)
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python $(REQUIREMENTS)
	$(BIN)/python -m pip install --editable ".[docs]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(BIN)/python $(REQUIREMENTS)
	$(BIN)/python -m pip install --editable ".[dev]"
	-$(SERVING_API)
	touch $@ $(VENV)/.installed $(VENV)/.installed-tests $(VENV)/.installed-docs
