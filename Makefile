# make study · status · verify · reader · new · lab · test · soak · speed · lint      (README.md says what each is for)
STUDY ?= rehearsal
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Python compiles what is imported when it is first imported; compiling everything at once would take a third of the install.
PIP := $(BIN)/pip install -q --no-compile -c constraints.txt
# On Linux without an NVIDIA GPU torch comes as its CPU build: from wherever pip is set up to find one, else from PyTorch's own index.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
export CASES OUTPUTS KEYS PARAMS
quoted = '$(subst ','\'',$(1))'

.PHONY: study status verify reader new lab test soak speed lint help
.DEFAULT_GOAL := study

study: $(VENV)/study.stamp
	@$(BIN)/python -m helpers.runner.study run $(call quoted,$(STUDY)) $(if $(SET),--set $(call quoted,$(SET))) $(if $(ONLY),--only $(ONLY)) $(if $(FROM),--from $(FROM)) $(if $(FORCE),--force)

help:
	@head -1 Makefile

status verify: $(VENV)/study.stamp
	@$(BIN)/python -m helpers.runner.study $@ $(call quoted,$(STUDY))

new: $(VENV)/study.stamp
	@$(BIN)/python -m helpers.runner.study new $(call quoted,$(STUDY)) --like $(or $(LIKE),rehearsal)

reader: $(VENV)/study.stamp
	@$(BIN)/python -m helpers.reading.server $(call quoted,$(STUDY)) $(or $(DO),serve) $(ARGS)

lab: $(VENV)/study.stamp
	$(BIN)/jupyter lab --notebook-dir=notebooks

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest

soak: $(VENV)/test.stamp
	@mkdir -p outputs/soak
	$(BIN)/python -m pytest -m soak -rA --junitxml=outputs/soak/results.xml

speed: $(VENV)/test.stamp
	@PYTHONPATH=tests $(BIN)/python -m speed

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill metadata.colab cell.metadata.papermill cell.metadata.colab cell.metadata.outputId" notebooks/*.ipynb

$(VENV)/study.stamp: pyproject.toml constraints.txt
	@echo "Making the environment in $(VENV) (two to four minutes), first torch ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed; say which with PYTHON=python3.11")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@torch=$$(grep '^torch==' constraints.txt); \
	if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null \
	   && ! $(BIN)/pip install -q --dry-run --no-deps --ignore-installed --report - "$$torch" 2>/dev/null | grep -q '"version": "[0-9.]*+cpu"'; \
	then $(PIP) --index-url $(TORCH_CPU_INDEX) --extra-index-url https://pypi.org/simple "$$torch"; \
	else $(PIP) "$$torch"; fi
	@echo "... then the other packages ..."
	@$(PIP) -e '.[all]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/study.stamp tests/install_tools.sh
	@$(PIP) -e '.[all,test]'
	@BIN=$(BIN) sh tests/install_tools.sh
	@touch $@
