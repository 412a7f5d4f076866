# make study · status · verify · reader · poster · new · lab · colab · test · pythons · soak · speed · lint      (README.md says what each is for)
STUDY ?= rehearsal
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Python compiles what is imported when it is first imported; compiling everything at once would take a third of the install.
PIP := $(BIN)/pip install -q --no-compile -c constraints.txt
# On Linux without an NVIDIA GPU torch comes as its CPU build: from wherever pip is set up to find one, else from PyTorch's own index.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
export CASES OUTPUTS KEYS PARAMS CLUSTER
# Where Python may keep no bytecode, every kernel and worker would compile its imports anew: half a minute each.
unexport PYTHONDONTWRITEBYTECODE
quoted = '$(subst ','\'',$(1))'

.PHONY: study status verify reader poster new lab colab test pythons soak speed lint help own
.DEFAULT_GOAL := study

study: own
	@$(BIN)/python -m helpers.study run $(call quoted,$(STUDY)) $(if $(SET),--set $(call quoted,$(SET))) $(foreach run,$(ONLY),--only $(call quoted,$(run))) $(if $(FROM),--from $(call quoted,$(FROM))) $(if $(FORCE),--force)

help:
	@head -1 Makefile

status verify: own
	@$(BIN)/python -m helpers.study $@ $(call quoted,$(STUDY))

new: own
	@$(BIN)/python -m helpers.study new $(call quoted,$(STUDY)) --like $(call quoted,$(or $(LIKE),rehearsal))

reader: own
	@$(BIN)/python -m helpers.reading.server $(call quoted,$(STUDY)) $(or $(DO),serve) $(ARGS)

# DO=preview serves the companion page on this machine, until interrupted.
poster: own
	@$(BIN)/python -m helpers.study run $(call quoted,$(STUDY)) --only $(call quoted,$(or $(ONLY),10_make_poster)) $(if $(SET),--set $(call quoted,$(SET))) $(if $(FORCE),--force)
	@$(if $(filter preview,$(DO)),$(BIN)/python -m http.server 8010 --bind 127.0.0.1 --directory "$${OUTPUTS:-outputs}"/$(call quoted,$(STUDY))/$(call quoted,$(or $(ONLY),10_make_poster))/companion)

lab: own
	$(BIN)/jupyter lab --notebook-dir=notebooks

# Writes the address of this checkout's remote (or REPOSITORY=) into the notebooks' Colab cell, without a name or token in it.
REPOSITORY ?= $(shell git config --get remote.origin.url)
colab:
	@address=$$(printf '%s' $(call quoted,$(REPOSITORY)) | sed -E 's#^(ssh://)?git@([^:/]+)[:/]#https://\2/#; s#^(https?://)[^/@]*@#\1#'); \
	sed -i.before -E "s#^( *\"repository = \\\\\").*(\\\\\"  \# @param)#\1$$address\2#" notebooks/*.ipynb && rm notebooks/*.before; \
	if [ "$$address" ]; then echo "The Colab cells install from $$address."; \
	else echo "This checkout has no remote: the Colab cells will ask for an address (or give REPOSITORY=https://...)."; fi

# One worker per core, with one thread of torch each: with more they wait for one another.
test: own $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

# The fast tests on every later Python that is here (on the PATH or from pyenv), each in an environment of its own.
PYTHONS ?= $(foreach v,3.12 3.13,$(firstword $(wildcard $(HOME)/.pyenv/versions/$(v)*/bin/python) $(shell command -v python$(v))))
FAST := $(filter-out %finetune.py %sampling.py %training_run.py %study.py %reading_server.py %reading_load.py %speed.py %postgres.py %buying.py %whole.py,$(wildcard tests/test_*.py))
pythons:
	@for python in $(PYTHONS); do \
	version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); echo "Python $$version:"; \
	$(MAKE) --no-print-directory "$(VENV)-$$version/test.stamp" VENV="$(VENV)-$$version" PYTHON="$$python" \
	&& OMP_NUM_THREADS=1 "$(VENV)-$$version/bin/python" -m pytest -n logical --dist loadfile $(FAST) || exit 1; done

soak: $(VENV)/test.stamp
	@mkdir -p outputs/soak
	$(BIN)/python -m pytest -m soak -o timeout=0 -rA --junitxml=outputs/soak/results.xml

speed: $(VENV)/test.stamp
	@PYTHONPATH=tests $(BIN)/python -m speed

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill metadata.colab cell.metadata.papermill cell.metadata.colab cell.metadata.outputId" notebooks/*.ipynb

# An environment that several checkouts share (VENV=) has the helpers of one of them: it is never silently pointed at another.
define refuse_another
@found=$$(test ! -x $(BIN)/python || $(BIN)/python -I -c 'import importlib.util as u; s = u.find_spec("helpers"); print(s.origin if s else "")'); \
	case "$$found" in ""|"$(CURDIR)/helpers/__init__.py") ;; *) \
	echo "error: $(VENV) belongs to the checkout that has $$found. Give another one with VENV=, or hand it over with '$(BIN)/python -m pip install --no-deps -e .'" >&2; exit 1 ;; esac
endef

own: $(VENV)/study.stamp
	$(refuse_another)

$(VENV)/study.stamp: pyproject.toml constraints.txt
	$(refuse_another)
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
