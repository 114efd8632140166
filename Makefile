# Every target runs in .venv, which .ci/setup_venv.sh makes from a Python 3.10 found on this machine;
# peers also in .venv-peers, from a Python 3.11.

PYTHON := .venv/bin/python
DEMO_OUTPUT := output_demo
# More options for the demo's command or for pytest: make demo DEMO_ARGS="-nt 3"
DEMO_ARGS :=
TEST_ARGS := -n 2 --dist loadfile --no-loadscope-reorder --durations=15
# "--run subset": minutes instead of hours.
REPRODUCTION_ARGS :=

# Packages are installed uncompiled: a process that may not keep what it compiles takes seconds longer.
unexport PYTHONDONTWRITEBYTECODE

# The folder of the MNIST and CIFAR-10 test images, for benchmarks; the official archives without it.
DATA :=

.PHONY: help venv venv-cuda venv-dev demo test test-fast fix lint fidelity label_noise scaling peers reproduction

help:
	@echo "make demo   find wrong labels in digits, remove them and retrain, into $(DEMO_OUTPUT)/ (a minute, and one for the set-up)"
	@echo "make test   run all tests"
	@echo "make lint   run ruff, mypy and the import contract"
	@echo "make fix    let ruff correct what it can"
	@echo "make test-fast   run the tests that take no more than seconds, for daily work"
	@echo "make fidelity DATA=PATH   compare the scores with true retraining (many hours; FIDELITY_ARGS for less)"
	@echo "make label_noise DATA=PATH   how many wrong labels each method finds, compared with cleanlab (hours)"
	@echo "make scaling DATA=PATH    time and memory against images, steps, parameters, removals (3 minutes)"
	@echo "make peers DATA=PATH      compare the scores with other libraries', in an environment of their own (hours; PEERS_ARGS for less)"
	@echo "make reproduction DATA=PATH   repeat the papers' experiments (hours)"
	@echo "make venv   only make .venv with what the commands need"
	@echo "make venv-cuda   the same with what they need on an NVIDIA GPU (1.8 GB to download)"

venv:
	@bash .ci/setup_venv.sh requirements.txt

venv-cuda:
	@TAKES="1.8 GB to download, 3.8 GB on disk" bash .ci/setup_venv.sh requirements.txt requirements-cuda.txt
	@$(PYTHON) -m utils.training.repair_cuda

venv-dev:
	@bash .ci/setup_venv.sh requirements.txt requirements-dask.txt requirements-dev.txt

demo: venv
	@echo "Reading the digits and timing the work; the first lines come in some seconds"
	$(PYTHON) eval_sgd_influence.py -ds digits -o "$(DEMO_OUTPUT)" -e 10 -r 0 10 40 100 \
		--flip_labels 0.1 --methods Hara Ours AUM Random $(DEMO_ARGS)
	@echo "The page to look at is $(CURDIR)/$(DEMO_OUTPUT)/report/index.html"
	@echo "The picture is $(CURDIR)/$(DEMO_OUTPUT)/fig/result.png"
	@echo "The table is $(CURDIR)/$(DEMO_OUTPUT)/summary/summary.csv"

test: venv-dev
	$(PYTHON) -m pytest $(TEST_ARGS)

test-fast: venv-dev
	$(PYTHON) -m pytest $(TEST_ARGS) -m "not slow"

fix: venv-dev
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

lint: venv-dev
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports --no-cache

# FIDELITY_ARGS="--tasks logreg dnn --seeds 0" for less.
FIDELITY_ARGS :=
fidelity: venv
	$(PYTHON) benchmarks/fidelity.py $(if $(DATA),--data "$(DATA)") $(FIDELITY_ARGS)

# LABEL_NOISE_ARGS="--seeds 0 --only mnist/uniform/0.1" for less.
LABEL_NOISE_ARGS :=
label_noise:
	@VENV=.venv-label-noise MODULES="nnabla.parametric_functions, cleanlab.rank" bash .ci/setup_venv.sh requirements.txt requirements-benchmarks.txt
	.venv-label-noise/bin/python benchmarks/label_noise.py $(if $(DATA),--data "$(DATA)") $(LABEL_NOISE_ARGS)

scaling: venv
	$(PYTHON) benchmarks/scaling.py $(if $(DATA),--data "$(DATA)")

# Keeps problems and truths in output_peers/. PEERS_ARGS="--seeds 0 --groups_whole 20" for less.
PEERS_ARGS :=
peers: venv
	@VENV=.venv-peers PYTHON_VERSION=3.11 MODULES="torch, captum, kronfluence" \
	    bash .ci/setup_venv.sh benchmarks/peers/requirements.txt
	$(PYTHON) benchmarks/peers/compare.py $(if $(DATA),--data "$(DATA)") $(PEERS_ARGS)

reproduction: venv
	@test -n "$(DATA)" || { echo "give the folder of the images: make reproduction DATA=PATH"; exit 2; }
	$(PYTHON) benchmarks/reproduction.py --data "$(DATA)" $(REPRODUCTION_ARGS)
