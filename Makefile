# make lab | test | tour | quick | clean - each sets up .venv by itself, once, and says what it is doing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := lab,data,interop,dev
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup lab test tour quick torture pages refresh clean

help:
	@echo "make lab      set up and open JupyterLab on the tour (this machine only, with a token)"
	@echo "make tour     the tour without a browser: page, map and figures in runs/tour/"
	@echo "make test     set up and run everything: export in sync, every page, the suite"
	@echo "make quick    the suite without pages and browser, under 3 minutes"
	@echo "make torture  kill training runs at random moments, resume, compare the last bits"
	@echo "make refresh  run every page and keep its outputs (PAGES=nbs/.../51_simclr.ipynb for one)"
	@echo "make clean    remove .venv, runs and build leftovers"

$(STAMP): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"rsssl_nb needs Python 3.11 or newer, this is {v.major}.{v.minor}: run make PYTHON=/path/to/python3.11")'
	@echo "== setting up $(VENV): a few minutes and about 6 GB, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-warn-script-location -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

setup: $(STAMP)

lab: $(STAMP)
	@echo "== JupyterLab on nbs/00_start/00_tour.ipynb; stop it with Ctrl-C"
	@jupyter lab --ServerApp.ip=127.0.0.1 nbs/00_start/00_tour.ipynb

tour: $(STAMP)
	@echo "== running the tour into runs/tour/"
	@python tests/tour.py runs/tour

test: $(STAMP)
	@echo "== pages, two at a time, each in a clean kernel"
	@OMP_NUM_THREADS=1 python tests/pages.py
	@echo "== suite"
	@python -m pytest -q

quick: $(STAMP)
	@echo "== suite without pages and browser"
	@python -m pytest -q -m "not browser and not long"

torture: $(STAMP)
	@echo "== 100 kills per method, resumed to the end (about 10 minutes)"
	@OMP_NUM_THREADS=1 python tests/torture.py --kills 100 --log results/torture.json

refresh: $(STAMP)
	@OMP_NUM_THREADS=1 python tests/pages.py --refresh $(PAGES)
	@nbdev_clean --fname nbs

clean:
	@rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .hypothesis _proc _docs
	@echo "removed $(VENV), runs/ and build leftovers"
