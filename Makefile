# Everything a person needs to type. The first use of a target sets up .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help run test test-all image-test bindings check docs site man screenshots fuzz known lab bench bench-match bench-scan bench-start bench-parts bench-record bench-compare bench-sinks bench-plan bench-report bench-cluster dist clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit("probemill needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv || { echo "cannot create .venv; on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

# hyperscan has wheels for common platforms only; without it the re2 engine does the work.
.venv/run: .venv/created pyproject.toml constraints.txt
	@echo "installing probemill into .venv"
	@$(PIP) uninstall -qq -y google-re2  # an older .venv has it, and it hides pyre2: both are imported as re2
	@$(PIP) install -c constraints.txt -e '.[fast]' || $(PIP) install -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/run
	@echo "installing development tools into .venv"
	@$(PIP) install -c constraints.txt -e '.[dev,deep]'
	@touch $@

run: .venv/run  ## scan the demonstration network, or TARGETS="host:port ..." or ARGS="any scan options"
ifeq ($(strip $(TARGETS)$(ARGS)),)
	@$(BIN)/python -m bench.demo
else
	@$(BIN)/probemill scan $(TARGETS) $(ARGS)
endif

test: .venv/dev  ## run the tests; needs neither root nor an installed Nmap
	@$(BIN)/python -m pytest -n 4 --dist loadgroup -m "not real" $(TESTS)

.venv/all: .venv/dev
	@echo "installing what lakes, clusters, reports and data engines need into .venv"
	@$(PIP) install -c constraints.txt -e '.[lake,ray,report,top,deepdev,lakedev,pagedev,installdev,site]'
	@touch $@

test-all: .venv/all  ## run all tests, those too with real servers, or with the extras (some 2 GB of packages)
	@$(BIN)/python -m pytest -n 4 --dist loadgroup $(TESTS)

image-test: .venv/dev  ## build the image of docs/install/ for real (root, buildah, debootstrap) and scan with it
	@PROBEMILL_IMAGE_TEST=1 $(BIN)/python -m pytest -rs tests/test_image.py

# Two throwaway folders with nothing but pyre2 and pcre2, in front of what is in .venv.
ALLOWED := $(shell sed -nE 's/^ *"((pyre2|pcre2)>=.*)",.*/"\1"/p' pyproject.toml)
LOWEST := $(shell sed -nE 's/^ *"(pyre2|pcre2)>=([0-9.]+),.*/\1==\2/p' pyproject.toml)
MATCHER_TESTS := $(patsubst %,tests/test_%.py,bindings patterns translate matcher regex_cases grammar_cases golden)

bindings: .venv/dev  ## run the matcher's tests with the lowest and the newest pyre2 and pcre2 that are allowed
	@rm -rf .bindings
	@$(PIP) install --target .bindings/lowest $(LOWEST)
	@$(PIP) install --target .bindings/newest $(ALLOWED)
	@for folder in .bindings/lowest .bindings/newest; do \
		(cd $$folder && echo "$$folder:" *.dist-info) && \
		PYTHONPATH=$(CURDIR)/$$folder $(BIN)/python -m pytest -n 4 -rs $(MATCHER_TESTS) || exit 1; \
	done

check: .venv/dev  ## lint and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy

docs: .venv/dev  ## write the parts of docs/ that are made from the code
	@$(BIN)/python docs/generate.py

site: .venv/all  ## build the documentation as a site, to be read from build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

man: .venv/dev  ## write the man pages into dist/man
	@$(PIP) install -c constraints.txt click-man
	@$(BIN)/python docs/man.py dist/man

fuzz: .venv/dev  ## four minutes of coverage-guided fuzzing (installs atheris)
	@$(PIP) install atheris
	@$(BIN)/python tests/fuzz_matcher.py -max_total_time=60
	@$(BIN)/python tests/fuzz_responses.py -max_total_time=60
	@$(BIN)/python tests/fuzz_targets.py -max_total_time=60
	@$(BIN)/python tests/fuzz_post.py -max_total_time=60

known: .venv/dev  ## measure anew which known responses lines win of others: data/known-wins (needs ../shared)
	@$(BIN)/python -m bench.known_wins --write

lab: .venv/dev  ## compare with Nmap on real daemons (root, apt and ../shared/lab)
	@$(BIN)/python -m bench.lab --up $(ARGS)

bench: bench-match bench-scan bench-start bench-parts  ## all benchmarks

bench-match: .venv/dev  ## matching speed of every engine, and of the whole `probemill match`
	@$(BIN)/python -m bench.match_table
	@$(BIN)/python -m bench.match_command

bench-scan: .venv/dev  ## scan throughput on loopback farms, the concurrency it finds, and TLS beside a bare loop
	@$(BIN)/python -m bench.scan_table
	@$(BIN)/python -m bench.pace
	@$(BIN)/python -m bench.tls_table

bench-start: .venv/dev  ## how soon a scan begins, warm, cold and interrupted
	@$(BIN)/python -m bench.start $(ARGS)

bench-parts: .venv/dev  ## parse, plan, candidates, confirm, templates, encode, match and scan, each by itself
	@$(BIN)/python -m pytest -o addopts= -o python_files='bench_*.py' --benchmark-timer=time.process_time --benchmark-columns=min,median,stddev,rounds bench

bench-record: .venv/dev  ## measure this commit and append it to bench/record
	@$(BIN)/python -m bench.record $(ARGS)

bench-compare: .venv/dev  ## what has become better or worse since the last record
	@$(BIN)/python -m bench.record --compare $(ARGS)

bench-sinks: .venv/all  ## what sinks cost, alone and beside a scan
	@$(BIN)/python -m bench.sinks

bench-plan: .venv/dev  ## whether what `probemill plan` says is so, on loopback farms
	@$(BIN)/python -m bench.forecast

bench-report: .venv/all  ## what a report of a million rows costs, and how quickly its page searches
	@$(BIN)/python -m bench.report

screenshots: .venv/all  ## write docs/img from a report of the demonstration network
	@$(BIN)/python -m bench.screenshots

bench-cluster: .venv/all  ## what a Ray cluster costs, and what its driver holds
	@$(BIN)/python -m bench.cluster_table

dist: .venv/dev  ## build wheel and source archive into dist/
	@$(BIN)/python -m build --no-isolation

clean:  ## remove what make made
	@rm -rf .venv .bindings dist build results.ndjson
