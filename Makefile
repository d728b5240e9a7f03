# make lab | test | lint | tour | quick | clean - each sets up .venv by itself, once, and says what it is doing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := lab,data,interop,imagenet,onnx,polygons,docs,dev
# What people write: the notebooks and these; the rest of rsssl_nb/ is nbdev's.
WRITTEN := nbs tests benchmarks experiments docs setup.py rsssl_nb/cli $(addprefix rsssl_nb/,$(addsuffix .py,__init__ __main__ doctor lessons moved))
# The share of lines that the quick suite runs, in percent: measured, then held.
FLOOR  := 94
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup lab test lint house tour suite browser quick coverage torture fuzz pages bench docs dashboard refresh clean journey evidence-small evidence-pack evidence evidence-cpu judges proof

help:
	@echo "make lab      set up and open JupyterLab on the tour (this machine only, with a token)"
	@echo "make tour     the tour without a browser: page, map and figures in runs/tour/"
	@echo "make test     set up and run everything: lint, every page, export in sync, the suite"
	@echo "make lint     ruff (rules and format, notebooks too) and mypy"
	@echo "make house    the counts of the house: sizes, names, circles, annotations, notebooks"
	@echo "make pages    run every page in a clean kernel, two at a time, and keep nothing"
	@echo "make suite    the suite without browser; make browser is its other part"
	@echo "make coverage the quick suite, and the share of lines it runs"
	@echo "make quick    the suite without pages and browser, under 3 minutes"
	@echo "make torture  kill training runs and maps at random moments, resume, compare the last bits"
	@echo "make bench    speed beside other libraries and its limits, under 15 minutes on a quiet machine; rows in results/bench-<device>.json"
	@echo "make docs     the site from the same pages, links checked, in _docs/site/; it needs no network to be read"
	@echo "make fuzz     a thousand mutated TIFFs against the raster door, a thousand labels, polygons and segmenters; under 6 minutes"
	@echo "make dashboard  the explorers in tabs, in a browser (this machine only, with a token)"
	@echo "make journey  the dashboard in a real browser on three rasters of RSSSL_DATA, gestures and screenshots, in runs/journey/"
	@echo "make refresh  run every page and keep its outputs (PAGES=nbs/course/04_simclr.ipynb for one)"
	@echo "make evidence-small  every method and placebo through the evidence harness, two minutes on a processor"
	@echo "make judges   what is left of the judges' tables and positive controls, an hour a call: experiments/JUDGES.md"
	@echo "make proof    what is left of the proof's campaign, an hour a call: experiments/PROTOCOL.md"
	@echo "make evidence-cpu  tables and figures of the proof's rows, from committed files, under two minutes"
	@echo "make evidence-pack   Dubai and RSSCN7 as tiles (RSSSL_DATA) for a GPU machine; there: make evidence, until nothing is left"
	@echo "make clean    remove .venv, runs and build leftovers"

$(STAMP): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"rsssl_nb needs Python 3.11 or newer, this is {v.major}.{v.minor}: run make PYTHON=/path/to/python3.11")'
	@echo "== setting up $(VENV): a few minutes and about 6 GB, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
# Byte code is made at a module's first import: making all of it took a third of the setting up.
	@$(BIN)/python -m pip install --quiet --no-compile --no-warn-script-location -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

setup: $(STAMP)

lab: $(STAMP)
	@echo "== JupyterLab on nbs/course/00_tour.ipynb; stop it with Ctrl-C"
	@rsssl-nb lab nbs

tour: $(STAMP)
	@echo "== running the tour into runs/tour/"
	@python tests/tour.py runs/tour

test: lint
	@$(MAKE) --no-print-directory -j2 pages evidence-small
	@$(MAKE) --no-print-directory -j2 suite browser

suite: $(STAMP)
	@echo "== suite without browser"
	@python -m pytest -q -n 2 --dist loadfile -m "not browser"

# In a process of its own, beside the suite: half of its time it waits.
browser: $(STAMP)
	@echo "== suite in a real browser"
	@python -m pytest -q -m browser --ignore=tests/test_browser_pages.py

pages: $(STAMP)
	@echo "== pages, two at a time, each in a clean kernel"
	@OMP_NUM_THREADS=1 python tests/pages.py

lint: $(STAMP)
	@echo "== ruff and mypy"
	@ruff check .
	@ruff format --check $(WRITTEN)
	@mypy

house: $(STAMP)
	@python tests/house.py

coverage: $(STAMP)
	@python -m pytest -q -n 2 --dist loadfile -m "not browser and not long" --cov --cov-report=term --cov-fail-under=$(FLOOR)

quick: $(STAMP)
	@echo "== suite without pages and browser"
	@python -m pytest -q -n 2 --dist loadfile -m "not browser and not long"

torture: $(STAMP)
	@echo "== 100 kills per method, resumed to the end (about 10 minutes)"
	@OMP_NUM_THREADS=1 python tests/torture.py --kills 100 --log results/torture.json

$(VENV)/.bench: $(STAMP)
	@echo "== installing what the benchmarks compare with (bench extra)"
	@$(BIN)/python -m pip install --quiet --no-warn-script-location -c constraints.txt -e '.[bench]' || echo "not all of it could be installed: rows without their peer are skipped"
	@touch $@

bench: $(VENV)/.bench
	@echo "== benchmarks (exit code 3: some rows could not be measured here, each says why)"
	@python benchmarks/run.py

$(VENV)/.docs: $(STAMP)
	@$(BIN)/python -m pip install --quiet --no-warn-script-location -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs
	@python docs/make.py

fuzz: $(STAMP)
	@OMP_NUM_THREADS=1 python tests/fuzz.py
	@OMP_NUM_THREADS=1 python tests/fuzz.py --kind labels

dashboard: $(STAMP)
	@echo "== the explorers in tabs, in a browser, this machine only; stop it with Ctrl-C"
	@python -m rsssl_nb dashboard

journey: $(STAMP)
	@echo "== the dashboard in a real browser, three rasters, three widths, light and dark (about 15 minutes)"
	@python tests/journey.py --out runs/journey
# Not in `make test`, which runs the same pages without a browser: twelve pages took twelve minutes on half a core.
	@echo "== Run All Cells on every page of course/ and explore/, in JupyterLab in a real browser"
	@python -m pytest -q tests/test_browser_pages.py

refresh: $(STAMP)
	@OMP_NUM_THREADS=1 python tests/pages.py --refresh $(PAGES)
	@nbdev-clean --fname nbs

evidence-small: $(STAMP)
	@echo "== every method and placebo on embedded scenes, small rows in runs/evidence/small"
	@rm -rf runs/evidence/small
	@OMP_NUM_THREADS=1 python experiments/evidence.py --stage small --results runs/evidence/small --budget 3600

judges: $(STAMP)
	@echo "== what is left of the judges' tables and positive controls, an hour at a time (RSSSL_DATA)"
	@python experiments/judges.py --budget 3600

proof: $(STAMP)
	@echo "== what is left of the proof's campaign, an hour at a time (RSSSL_DATA)"
	@python experiments/proof.py --budget 3600

evidence-cpu: $(STAMP)
	@OMP_NUM_THREADS=1 python experiments/report.py

evidence-pack: $(STAMP)
	@python experiments/evidence.py --stage pack

evidence:	# on the GPU machine, which need not be able to install anything: STAGES="B C" BUDGET=540
	@for stage in $(or $(STAGES),A); do PYTHONPATH=$(CURDIR) $(PYTHON) experiments/evidence.py --stage $$stage || exit; done

clean:
	@rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .hypothesis _proc _docs
	@echo "removed $(VENV), runs/ and build leftovers"
