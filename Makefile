# `make demo` and `make test` need Python 3.11 or newer, pip and make; everything else they install into $(VENV).
VENV ?= .venv
PYTHON ?= python3
# Processes that the tests share out among them; every one of them computes on one thread.
JOBS ?= 2
# Faults that `make mutants` tries, and which; of files, `make mutants FILES="auditor/report/machine_formats.py"`, or of the lines
# that differ from a commit, `make mutants CHANGED=main`.
MUTANTS ?= 40
SEED ?= 0
FILES ?=
CHANGED ?=
BIN := $(VENV)/bin
# What the tests need, and a place of its own for its oldest versions.
TESTED := .[demo,images,heic,media,onnx,provenance,gguf,language,tuning,xgboost,lightgbm,catboost,lightning,distributed,accounting,evidence,history,pdf,pdf-sign,bom,timestamp,endpoint]
FLOORS := $(VENV)-floors

.PHONY: demo test test-grids test-all test-floors test-ray lint docs mutants constraints bench-setup bench-gpu clean

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# Dependency groups need pip 25.1.
$(VENV)/.pip: | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.pip
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.pip
	$(BIN)/pip install --quiet --editable '$(TESTED)' --group test
	# Where Python is told to write no bytecode, every process that a test starts would compile all of it anew.
	$(BIN)/python -m compileall -q auditor probes mitigations cli
	touch $@

$(VENV)/.lint: pyproject.toml $(VENV)/.pip
	$(BIN)/pip install --quiet --editable '.[demo,images]' --group lint
	touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.pip
	$(BIN)/pip install --quiet --editable . --group docs
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python demo/hmda.py
	$(BIN)/auditor train demo/hmda.csv --target deny --positive no --seed 0 --out demo/model.pt \
	  --train-out demo/train.csv --test-out demo/test.csv
	@$(BIN)/auditor scan demo/model.pt --config demo/audit.toml --data demo/test.csv --train demo/train.csv \
	  --target deny --positive no --sensitive afam --out demo/audit-report || case $$? in 1|3) ;; *) exit 1 ;; esac
	@echo
	@echo "Open demo/audit-report/report.html. Exit codes 1 and 3 of scan are answers, not accidents."

# What is not slow, and of tests with many cases some cases each; all else is run by `make test-grids`.
test: $(VENV)/.test
	$(BIN)/python -m pytest --ring quick --numprocesses $(JOBS) --dist worksteal

test-grids: $(VENV)/.test
	$(BIN)/python -m pytest --ring grids --numprocesses $(JOBS) --dist worksteal

test-all: $(VENV)/.test
	$(BIN)/python -m pytest --ring all --numprocesses $(JOBS) --dist worksteal

# The quick ring with the oldest version of everything that pyproject.toml allows, in an environment of its own.
test-floors:
	$(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(PYTHON) -m tests.floors > $(FLOORS)/constraints.txt
	$(FLOORS)/bin/pip install --quiet --constraint $(FLOORS)/constraints.txt --editable '$(TESTED)' --group test
	$(FLOORS)/bin/python -m pytest --ring quick --numprocesses $(JOBS) --dist worksteal

# What needs a cluster: Ray on two local workers. 2.60 gives its own parts 30 s to start, which a busy machine exceeds.
test-ray: $(VENV)/.test
	$(BIN)/pip install --quiet 'ray==2.50.1'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/training/test_on_ray.py

# The types of all extras are read, which the tests install; the reference imports them. Last the skeletons that users get.
lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --ring lint tests/cli/test_new_probe.py
	$(BIN)/lint-imports

# Faults put on purpose into the statistics and the judgement, into FILES or into what was CHANGED: how many a test sees.
mutants: $(VENV)/.test
	$(BIN)/python -m tests.mutation --n $(MUTANTS) --seed $(SEED) $(addprefix --file ,$(FILES)) \
	  $(addprefix --changed ,$(CHANGED))

# The versions in $(VENV), for .ci/run to install the same. Local builds, such as +cpu of torch, have the version that is published.
constraints: $(VENV)/.test $(VENV)/.lint $(VENV)/.docs
	{ echo "# Made by make constraints: the versions that the tests passed with, on Python 3.11. Users are bound by pyproject.toml alone."; \
	  $(BIN)/pip freeze --exclude-editable | sed '/ @ /d; s/+cpu$$//'; } > constraints.txt

# Every warning is an error; --fresh-env, so that a page that was moved or taken out leaves nothing behind.
docs: $(VENV)/.test $(VENV)/.docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --fresh-env --quiet docs build/docs
	@echo "Open build/docs/index.html."

bench-setup: $(VENV)/.test
	$(BIN)/pip install --quiet --group bench
	$(BIN)/pip install --quiet --no-deps --requirement benchmarks/nodeps.txt

# Where there is a card: the tests that need one, and what is wanted of it.
bench-gpu: bench-setup
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m benchmarks.on_gpu

clean:
	rm -rf build dist *.egg-info demo/*.csv demo/*.pt demo/audit-report audit-report
