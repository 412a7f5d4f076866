# make study · status · verify · plan · reader · poster · new · lab · colab · test · pythons · soak
# · speed · gpu · lint      (what each does: README.md and the comments in Makefile)
STUDY ?= rehearsal
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Python compiles each module when it is first imported. Compiling everything at once would take a
# third of the install time.
PIP := $(BIN)/pip install -q --no-compile -c constraints.txt
# On Linux without an NVIDIA GPU, the CPU build of torch is installed: from the places that pip is
# configured to search, else from PyTorch's own index.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
export CASES OUTPUTS KEYS PARAMS CLUSTER
# Without bytecode files, every kernel and worker would compile its imports again, which takes half
# a minute.
unexport PYTHONDONTWRITEBYTECODE
quoted = '$(subst ','\'',$(1))'
RUN_STUDY = $(BIN)/python -m helpers.study run $(call quoted,$(STUDY))
SETTING = $(if $(SET),--set $(call quoted,$(SET)))
SETTINGS = $(SETTING) $(if $(filter-out 0 no false,$(FORCE)),--force)
POSTER = $(call quoted,$(or $(ONLY),10_make_poster))

.PHONY: study status verify plan reader poster new lab colab test pythons soak speed gpu lint help own
.DEFAULT_GOAL := study

study: own
	@$(RUN_STUDY) $(foreach run,$(ONLY),--only $(call quoted,$(run))) \
		$(if $(FROM),--from $(call quoted,$(FROM))) $(SETTINGS)

help:
	@head -2 Makefile

status verify: own
	@$(BIN)/python -m helpers.study $@ $(call quoted,$(STUDY)) $(if $(filter status,$@),$(SETTING))

# Needs no study: make plan ARGS='--readers 6 8 --images 80 120 --area 0.65'
plan: own
	@$(BIN)/python -m helpers.statistics.planning $(ARGS)

new: own
	@$(BIN)/python -m helpers.study new $(call quoted,$(STUDY)) \
		--like $(call quoted,$(or $(LIKE),rehearsal))

reader: own
	@$(BIN)/python -m helpers.reading.server $(call quoted,$(STUDY)) $(or $(DO),serve) $(ARGS)

# DO=preview serves the companion page on this machine, until interrupted.
poster: own
	@$(RUN_STUDY) --only $(POSTER) $(SETTINGS)
	@$(if $(filter preview,$(DO)),$(BIN)/python -m http.server 8010 --bind 127.0.0.1 \
		--directory "$${OUTPUTS:-outputs}"/$(call quoted,$(STUDY))/$(POSTER)/companion)

lab: own
	$(BIN)/jupyter lab --notebook-dir=notebooks

# Writes the address of this checkout's remote (or REPOSITORY=) into the notebooks' Colab cell. A
# user name or token in the address is left out, and so is a folder of this machine.
REPOSITORY ?= $(shell git config --get remote.origin.url)
colab:
	@address=$$(printf '%s' $(call quoted,$(REPOSITORY)) \
		| sed -E 's#^(ssh://)?[^@/:]+@([^:/]+)(:[0-9]+/|[:/])#https://\2/#; s#^(https?://)[^/]*@#\1#' \
		| grep -E '^https?://[A-Za-z0-9./_~%:+-]+$$'); \
	sed -i.before -E "s#^( *\"repository = \\\\\").*(\\\\\"  \# @param)#\1$$address\2#" \
		notebooks/*.ipynb && rm notebooks/*.before; \
	if [ "$$address" ]; then echo "The Colab cells install from $$address."; \
	else echo "This checkout has no remote that Colab can reach: its cells will ask for an address" \
		"(or give REPOSITORY=https://...)."; fi

# Two workers more than cores, because many tests wait: for a browser, a heartbeat, an answer. Each
# has one thread, or they would wait for one another. tests/conftest.py gives the files' order.
PARALLEL = -n $$(($$(getconf _NPROCESSORS_ONLN) + 2)) --dist loadfile --no-loadscope-reorder
test: own $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

# The fast tests on every newer Python that is installed (on the PATH or from pyenv), each in its
# own environment.
PYTHONS ?= $(foreach v,3.12 3.13,$(firstword \
	$(wildcard $(HOME)/.pyenv/versions/$(v)*/bin/python) $(shell command -v python$(v))))
SLOW := finetune sampling training_run study reading_server reading_load speed postgres
FAST := $(filter-out $(SLOW:%=tests/test_%.py),$(wildcard tests/test_*.py))
pythons:
	@for python in $(PYTHONS); do \
	version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	echo "Python $$version:"; \
	$(MAKE) --no-print-directory "$(VENV)-$$version/test.stamp" \
		VENV="$(VENV)-$$version" PYTHON="$$python" \
	&& OMP_NUM_THREADS=1 "$(VENV)-$$version/bin/python" -m pytest $(PARALLEL) $(FAST) || exit 1; done

soak: $(VENV)/test.stamp
	@BIN=$(BIN) sh tests/install_tools.sh soak
	@mkdir -p outputs/soak
	$(BIN)/python -m pytest -m soak -o timeout=0 -rA --junitxml=outputs/soak/results.xml

speed: $(VENV)/test.stamp
	@PYTHONPATH=tests $(BIN)/python -m speed

gpu: $(VENV)/test.stamp
	@PYTHONPATH=tests $(BIN)/python -m speed.gpu

STRIPPED := metadata.papermill metadata.colab \
	cell.metadata.papermill cell.metadata.colab cell.metadata.outputId
lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify --extra-keys "$(STRIPPED)" notebooks/*.ipynb

# An environment that several checkouts share (VENV=) contains the helpers of one checkout. It is
# never silently switched to another.
define refuse_another
@found=$$(test ! -x $(BIN)/python || $(BIN)/python -I -c 'import importlib.util as util; \
	found = util.find_spec("helpers"); print(found.origin if found else "")'); \
	case "$$found" in ""|"$(CURDIR)/helpers/__init__.py") ;; *) \
	echo "error: $(VENV) belongs to the checkout that has $$found. Give another environment with" \
	"VENV=, or hand this one over with '$(BIN)/python -m pip install --no-deps -e .'" >&2; \
	exit 1 ;; esac
endef

own: $(VENV)/study.stamp
	$(refuse_another)

$(VENV)/study.stamp: pyproject.toml constraints.txt
	$(refuse_another)
	@echo "Making the environment in $(VENV) (two to four minutes), first torch ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"error: Python 3.11 or later is needed; say which with PYTHON=python3.11")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@torch=$$(grep '^torch==' constraints.txt); \
	if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null \
	   && ! $(BIN)/pip install -q --dry-run --no-deps --ignore-installed --report - "$$torch" \
	   2>/dev/null | grep -q '"version": "[0-9.]*+cpu"'; \
	then $(PIP) --index-url $(TORCH_CPU_INDEX) --extra-index-url https://pypi.org/simple "$$torch"; \
	else $(PIP) "$$torch"; fi
	@echo "... then the other packages ..."
	@$(PIP) -e '.[all]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/study.stamp tests/install_tools.sh
	@$(PIP) -e '.[all,test]'
	@BIN=$(BIN) sh tests/install_tools.sh
	@touch $@
