# Two commands do everything: `make demo` and `make test`. Both set up a virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SAMPLE := models/samples/street.jpg

.PHONY: setup demo test test-services docs docs-serve licences lint clean

setup: $(READY)

# The native post-processing is compiled where a C++ compiler is there; without one the NumPy path is taken, and `doctor` says so.
$(READY): pyproject.toml constraints.txt setup.py $(wildcard rtformer_deploy/image/_native*pp) $(wildcard plugins/*.cuh)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[export,report,serve,tensorrt-rtx,dev]'
	touch $@

# FP32 and INT8 of the shipped network, on a photograph; about a minute on two quiet cores.
demo: $(READY)
	mkdir -p demo
	cd demo && ../$(BIN)/rtformer-deploy export --variant slim
	cd demo && ../$(BIN)/rtformer-deploy build-engine --output fp32.plan
	cd demo && ../$(BIN)/rtformer-deploy build-engine --int8 --output int8.plan
	cd demo && ../$(BIN)/rtformer-deploy segment int8.plan ../$(SAMPLE) --output segmented
	cd demo && ../$(BIN)/rtformer-deploy bench fp32.plan --seconds 4 --json fp32.json
	cd demo && ../$(BIN)/rtformer-deploy bench int8.plan --seconds 4 --json int8.json
	cd demo && ../$(BIN)/rtformer-deploy report . --output report.html
	@echo
	@echo "Look at demo/segmented/street_overlay.png and demo/report.html. Start the service, with a page at http://127.0.0.1:8000:"
	@echo "    $(BIN)/rtformer-deploy serve demo/int8.plan"

# The stub of the CUDA driver wants processes of its own: other tests rely on there being no driver.
test: $(READY) lint
	$(BIN)/python -m pytest -n 2 -m "not services"
	$(BIN)/python -m pytest -n 2 tests/stub_driver

# Clients of the service and a real Triton live in environments of their own: they want older versions than ours of what both use.
CLIENTS := .venv-clients
TRITON := .venv-triton

$(CLIENTS)/.ready: tests/services/clients.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --requirement tests/services/clients.txt
	touch $@

# Where its wheel cannot be had, the tests with a real Triton are skipped by name.
$(TRITON)/.ready: tests/services/triton.txt tests/services/make_triton.py
	$(PYTHON) tests/services/make_triton.py $(TRITON)

# Ray brings more than everything else together, so the cluster's tests have an environment of their own.
CLUSTER := .venv-cluster

$(CLUSTER)/.ready: tests/services/cluster.txt pyproject.toml constraints.txt setup.py
	$(PYTHON) -m venv $(CLUSTER)
	$(CLUSTER)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[serve,cluster,dev]'
	$(CLUSTER)/bin/python -m pip install --quiet --requirement tests/services/cluster.txt
	touch $@

# The page is clicked through in Debian's Chromium; without a `chromium` on the PATH those tests are skipped by name.
$(VENV)/.browser: $(READY) tests/services/browser.txt tests/services/deploy.txt
	$(BIN)/python -m pip install --quiet --requirement tests/services/browser.txt --requirement tests/services/deploy.txt
	touch $@

# A test whose server is missing is skipped by name. The RTSP server is Debian's: apt-get install --no-install-recommends
# gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly
test-services: $(READY) $(CLIENTS)/.ready $(TRITON)/.ready $(VENV)/.browser $(CLUSTER)/.ready docs
	$(BIN)/python -m pytest -m services
	$(CLUSTER)/bin/python -m pytest -m services tests/services/test_cluster.py

# The site of docs/, in build/site/index.html: strict, so a link that leads nowhere ends it. `docs-serve` shows it while you write.
$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.docs
	$(BIN)/mkdocs serve

# docs/licences.md, from what is installed: run it when a dependency was added or changes its licence.
licences: $(READY)
	$(BIN)/python docs/_site/licences.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf $(VENV) $(CLIENTS) $(TRITON) $(CLUSTER) demo build dist *.egg-info rtformer_deploy/image/_native*.so
