# make demo   train, export, verify and run a spam filter
# make test   checks and tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
VENV5 := .venv-transformers5
VENV_OPENVINO := .venv-openvino
BIN := $(VENV)/bin
DEMO := build/demo
# One test process a core; tests that share what is set up stay in one (tests/conftest.py).
WORKERS := --numprocesses auto --dist loadgroup

.PHONY: demo test test-transformers5 test-openvino clean

# torch comes first and alone: pip must not look for another build of it on another package's behalf.
$(VENV)/.ready: pyproject.toml .ci/constraints.txt examples/demo/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[all,dev,incumbent]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r examples/demo/requirements.txt
	touch $@

$(VENV5)/.ready: pyproject.toml .ci/constraints-transformers5.txt examples/demo/requirements.txt
	$(PYTHON) -m venv $(VENV5)
	$(VENV5)/bin/pip install --quiet --disable-pip-version-check --constraint .ci/constraints-transformers5.txt torch
	$(VENV5)/bin/pip install --quiet --disable-pip-version-check --constraint .ci/constraints-transformers5.txt \
		--editable '.[all]' build pytest pytest-xdist
	$(VENV5)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r examples/demo/requirements.txt
	touch $@

test: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(WORKERS)

test-transformers5: $(VENV5)/.ready
	$(VENV5)/bin/pytest $(WORKERS)

# Its onnxruntime takes the place of the usual one, so it has an environment of its own, with the runtime alone.
$(VENV_OPENVINO)/.ready: .ci/constraints-openvino.txt
	$(PYTHON) -m venv $(VENV_OPENVINO)
	$(VENV_OPENVINO)/bin/pip install --quiet --disable-pip-version-check --constraint .ci/constraints-openvino.txt \
		onnxruntime-openvino numpy tokenizers typer
	touch $@

test-openvino: $(VENV)/.ready $(VENV_OPENVINO)/.ready
	OPENVINO_PYTHON=$(CURDIR)/$(VENV_OPENVINO)/bin/python $(BIN)/pytest tests/runtime/sessions/test_openvino.py

demo: $(VENV)/.ready
	@echo "== text messages and a pretrained encoder"
	$(BIN)/python -m examples.demo $(DEMO)/data
	@echo "== train: two stages, about six minutes on two cores"
	$(BIN)/smartbert-train --model $(DEMO)/data/encoder --train-file $(DEMO)/data/train.tsv \
		--dev-file $(DEMO)/data/dev.tsv --output $(DEMO)/ckpt --overwrite \
		--stage2-epochs 2 --gate-lambda 0.005 --class-weights balanced --metric f1 \
		--validation-fraction 0.15 --max-disagreement 0.005
	@echo "== export: every layer, gate and exit head an ONNX graph of its own"
	$(BIN)/smartbert-export $(DEMO)/ckpt $(DEMO)/out --overwrite
	@echo "== verify: the package against PyTorch on all dev messages"
	$(BIN)/smartbert-verify $(DEMO)/out --against $(DEMO)/ckpt --file $(DEMO)/data/dev.tsv
	@echo "== measure: quality and time, in turns with every layer run and with one plain graph of the same weights"
	$(BIN)/smartbert-bench $(DEMO)/out --file $(DEMO)/data/dev.tsv --against plain --batch-sizes 32 --starts 1 \
		--save $(DEMO)/bench.json
	@echo "== classify: # a layer that was run, - one that was skipped, . one that was not needed any more"
	$(BIN)/smartbert-infer $(DEMO)/out --preload --batch-size 1 --file examples/demo/messages.txt
	@echo "try your own: $(BIN)/smartbert-infer $(DEMO)/out --trace --text \"...\""

clean:
	rm -rf build dist $(VENV) $(VENV5) $(VENV_OPENVINO)
