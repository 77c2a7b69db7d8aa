# What a fresh machine needs: Python 3.11 to 3.13 and make. `make demo` and `make test` do the rest.
PYTHON ?= python3
# GPU machines bring their own CUDA build: make install TORCH='torch>=2.11,<2.14'; one that is
# installed already is used with VENV_FLAGS=--system-site-packages as well.
TORCH ?= torch==2.13.0
VENV_FLAGS ?=
PORT ?= 8000
DATA_DIR ?= .secateur

BIN := .venv/bin
STAMP := .venv/.installed

# Tests start many small processes that each use torch: one thread a process is fastest.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Two processes; a file stays in one of them, and with it the servers its fixtures start.
PARALLEL := -n 2 --dist loadfile
# `make check` leaves out what starts whole servers.
SLOW_TESTS := tests/e2e tests/deploy tests/faults tests/test_services.py

.PHONY: help install demo test faults test-exhaustive fuzz fuzz-gate fuzz-api check lint serve openapi operators bench bench-targets bench-accuracy bench-finetune bench-quantise bench-service papers recovery zoo bench-zoo zoo-packages constraints clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with pinned dependencies (instant when nothing changed)

$(STAMP): constraints.txt pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Secateur needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one, for example: make install PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt '$(TORCH)'
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e client -e '.[dev,exports,s3]'
	@touch $@

demo: install ## Train LeNet-5, compress it through the service, show before and after
	$(BIN)/python -m demo

test: lint ## Lint, types, contracts and all tests (under 15 minutes on 2 cores)
	$(ONE_THREAD) $(BIN)/python -m pytest $(PARALLEL) -m 'not exhaustive'

test-exhaustive: install ## Every resume point and every pair, of which `make test` takes a few
	$(ONE_THREAD) $(BIN)/python -m pytest $(PARALLEL) -m exhaustive

faults: install ## Kill, restart and starve a whole installation at random moments, and count what happened
	$(ONE_THREAD) $(BIN)/python -m tests.faults

fuzz: install ## Property tests with new random examples every time, 200 a test
	$(ONE_THREAD) SECATEUR_HYPOTHESIS=explore $(BIN)/python -m pytest $(PARALLEL) tests/engine/core/test_random_networks.py tests/engine/selection tests/engine/pipeline/test_recipe_semantics.py

fuzz-gate: install ## 20,000 mutated archives against the gate of uploaded models (minutes)
	$(ONE_THREAD) $(BIN)/python -W ignore -m tests.attacks.fuzz --count 20000

fuzz-api: install ## Requests made up from openapi.yaml, 50 an operation and kind (minutes)
	$(ONE_THREAD) SECATEUR_API_EXAMPLES=50 $(BIN)/python -m pytest -q tests/service/test_schemathesis.py

check: lint ## Lint, types, contracts and the tests that start no server
	$(ONE_THREAD) $(BIN)/python -m pytest $(addprefix --ignore=,$(SLOW_TESTS)) -m 'not exhaustive' $(PARALLEL)

lint: install ## Ruff, mypy (strict) and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m service.openapi --check

serve: install ## Run the service in embedded mode on 127.0.0.1:8000
	$(BIN)/secateur serve --port $(PORT) --data-dir $(DATA_DIR)

operators: install ## Write the list of operators that uploaded models may use from torch's schemas
	$(BIN)/python -m tools.allowed_operators

openapi: install ## Write openapi.yaml from the code
	$(BIN)/python -m service.openapi --write

bench: install ## Time analysis and compaction against a named peer
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e client -e '.[bench]'
	$(BIN)/python -m bench.coupling_resnet50

bench-accuracy: install ## Accuracy after pruning and fine-tuning against the peer (an hour)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e client -e '.[bench]'
	$(ONE_THREAD) $(BIN)/python -m bench.accuracy
	$(BIN)/python -m bench.accuracy.table

# The packages that need torch come without their dependencies, so that the torch that is there
# stays; what they need besides comes with the others. Pins are those of the extra `zoo`.
zoo-packages: install
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps \
	  $$(sed -n 's/^zoo = //p' pyproject.toml | grep -oE '(torchvision|timm)==[0-9.]+')
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
	  $$(sed -n 's/^zoo = //p' pyproject.toml | grep -oE 'transformers==[0-9.]+')

bench-finetune: install ## Speed of fine-tuning against an eager loop (half an hour)
	$(ONE_THREAD) $(BIN)/python -m bench.finetune

bench-targets: install ## What is asked of every target and what is reached, milliseconds too (minutes)
	$(ONE_THREAD) $(BIN)/python -m bench.targets

bench-quantise: install ## Files of weights in few bits, what decoding them costs, perplexity, Deep Compression, int8 against onnxruntime (half an hour)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e client -e '.[exports]'
	$(ONE_THREAD) $(BIN)/python -W ignore -m bench.quantise.perplexity
	$(ONE_THREAD) $(BIN)/python -W ignore -m bench.quantise.deep_compression
	$(ONE_THREAD) $(BIN)/python -W ignore -m bench.quantise
	$(ONE_THREAD) $(BIN)/python -W ignore -m bench.quantise.int8_peer

bench-service: install ## The service under load, against the least that does the same (20 minutes)
	$(ONE_THREAD) $(BIN)/python -m bench.service

papers: install ## Try claims of papers on digits, five seeds each, and write docs/papers.md (an hour)
	$(ONE_THREAD) $(BIN)/python -m bench.papers
	$(BIN)/python -m bench.papers.table

recovery: install ## Prune, recover with and without a teacher, six tasks, and write docs/recovery.md (half an hour)
	$(ONE_THREAD) $(BIN)/python -W ignore -m bench.recovery
	$(BIN)/python -m bench.recovery.table

zoo: zoo-packages ## Compact every architecture of the zoo and write docs/coverage.md (hours)
	$(ONE_THREAD) $(BIN)/python -m bench.zoo --results build/zoo.jsonl
	$(BIN)/python -m bench.zoo.table build/zoo.jsonl

bench-zoo: zoo-packages ## Time and memory against the peer over the zoo, scaling, a large decoder (hours)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e client -e '.[bench]'
	$(ONE_THREAD) $(BIN)/python -m bench.zoo.speed
	$(BIN)/python -m bench.zoo.table
	$(ONE_THREAD) $(BIN)/python -m bench.zoo.scaling
	$(ONE_THREAD) $(BIN)/python -m bench.zoo.decoder

constraints: install ## Write constraints.txt from what .venv holds
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable \
	  | grep -viE '^(#|torch=|torch @|torch-pruning=|torchvision=|timm=|transformers=|nvidia-|triton=)'; } > constraints.new && mv constraints.new constraints.txt

clean: ## Remove what the targets made
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +
