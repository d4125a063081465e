# `make run` and `make test`, as README.md tells; `make help` lists the rest.
# Needs python3 (3.11 or newer, with venv). Paths are relative: the checkout's may hold a blank.

PYTHON ?= python3
VENV ?= .venv
TESTS ?=
# Of make chaos; no SEED: any.
SECONDS ?= 60
SEED ?=
WORKERS ?= 2
BREAK ?=
# Of make bench-peers, of which SECONDS is the length of each load.
ROUNDS ?= 5
# Of make bench.
PROFILE ?=
PEER_SECONDS = $(if $(filter file,$(origin SECONDS)),6,$(SECONDS))

.PHONY: help run test test-long test-pythons test-sdks chaos chaos-broken lint format venv docs-providers clean
.PHONY: bench bench-resilience bench-peers bench-overload bench-growth bench-memory bench-profile

help:
	@echo 'make run           the daemon in the foreground, with etc/demo.toml; state in ./var'
	@echo 'make test          all tests; TESTS=tests.unit for some of them'
	@echo 'make test-long     what takes longer: all tests on every Python that is here'
	@echo 'make test-sdks     the vendors'\'' own libraries (190 MB) sign, and check what we sign'
	@echo 'make chaos         kills, stops and cuts everything, and checks that nothing was lost;'
	@echo '                   SECONDS=1800 SEED=1 WORKERS=2; BREAK=NAME with a promise broken on purpose'
	@echo 'make chaos-broken  each promise broken in turn: whether the checks see it'
	@echo 'make lint          ruff, mypy --strict, import-linter'
	@echo 'make bench         the benchmark, as docs/performance.md tells; 2 minutes'
	@echo '                   PROFILE=twilio: what signed requests in its format cost; 3 minutes'
	@echo 'make bench-peers   beside Kannel and FastAPI: needs the Debian packages wrk and kannel;'
	@echo '                   ROUNDS=5 SECONDS=6; 8 minutes'
	@echo 'make bench-overload  accepted and delivered under overload, drawn in docs/overload.png; 2 minutes'
	@echo 'make bench-growth  the figures at 0, 1 and 10 million stored SMS, drawn in docs/growth.png;'
	@echo '                   10 GB of disk, 30 minutes'
	@echo 'make bench-memory  memory of a worker while a million SMS are delivered; 15 minutes'
	@echo 'make bench-profile  where the time goes, by module, and CPU seconds per SMS; 1 minute'
	@echo 'make bench-resilience  the figures of bad days in docs/guarantees.md; 10 minutes'
	@echo 'make docs-providers  docs/providers.md, of the profiles'
	@echo 'make venv          only the environment; PYTHON=python3.13 VENV=.venv-3.13 for another Python'
	@echo 'make clean         removes what these have made, except ./var'

# twistd is told once, by SIGTERM, whatever make's process group hears; being ended by it is success.
run: $(VENV)/installed
	@$(VENV)/bin/twistd --nodaemon --pidfile= smsdaemon --demo etc/demo.toml & daemon=$$!; \
	trap 'trap "" HUP INT TERM; kill $$daemon 2>/dev/null' HUP INT TERM; \
	wait $$daemon 2>/dev/null || wait $$daemon 2>/dev/null || test $$? -gt 128

test: $(VENV)/installed
	@$(VENV)/bin/python -m tests.support.suite $(TESTS)

test-long: test-pythons test-sdks
	@$(MAKE) --no-print-directory chaos SECONDS=300
	@$(MAKE) --no-print-directory chaos-broken

test-sdks: $(VENV)/sdks
	@$(VENV)/bin/python -m tests.support.suite tests.sdks.vendors

test-pythons:
	@tests/support/each_python '$(MAKE)'

chaos: $(VENV)/installed
	@$(VENV)/bin/python -m tests.chaos --seconds '$(SECONDS)' --workers '$(WORKERS)' --broken '$(BREAK)' \
	  $(if $(SEED),--seed '$(SEED)')

chaos-broken: $(VENV)/installed
	@$(VENV)/bin/python -m tests.chaos.all_broken

lint: $(VENV)/linters
	$(VENV)/bin/ruff check smsdaemon tests twisted
	$(VENV)/bin/ruff format --check smsdaemon tests twisted
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/linters
	$(VENV)/bin/ruff check --fix smsdaemon tests twisted
	$(VENV)/bin/ruff format smsdaemon tests twisted

bench-resilience: $(VENV)/installed
	@$(VENV)/bin/python -m tests.bench.resilience away
	@$(VENV)/bin/python -m tests.bench.resilience fairness
	@$(VENV)/bin/python -m tests.bench.resilience mountain

bench: $(VENV)/installed
	@$(VENV)/bin/python -m tests.bench.$(if $(PROFILE),profile_cost '$(PROFILE)',bench)

docs-providers: $(VENV)/installed
	@$(VENV)/bin/python -m tests.support.provider_docs

bench-overload: $(VENV)/benching
	@$(VENV)/bin/python -m tests.bench.overload

bench-growth: $(VENV)/benching
	@$(VENV)/bin/python -m tests.bench.growth

bench-memory: $(VENV)/benching
	@$(VENV)/bin/python -m tests.bench.memory

bench-profile: $(VENV)/benching
	@$(VENV)/bin/python -m tests.bench.profiled

bench-peers: $(VENV)/installed
	@$(VENV)/bin/python -m tests.bench.peers --rounds '$(ROUNDS)' --seconds '$(PEER_SECONDS)'

venv: $(VENV)/installed

clean:
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf _trial_temp* .coverage twisted/plugins/dropin.cache
	find smsdaemon tests twisted -name __pycache__ -prune -exec rm -rf {} +

# --- the environment ----------------------------------------------------------------------------

# In an editable install Twisted finds plugins in compat mode only.
INSTALL = $(VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
          --config-settings editable_mode=compat --editable

# The programs in it name the folder: in a checkout that was moved it is made anew. Otherwise a change of
# setup.cfg only installs into it, so that what is being used goes on.
ifneq ($(file < $(VENV)/installed),$(CURDIR))
$(VENV)/installed: anew
endif
.PHONY: anew

$(VENV)/installed: setup.cfg pyproject.toml
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smsdaemon needs Python 3.11 or newer")'
	@echo 'making $(VENV) …'
	@test "$$(cat $(VENV)/folder 2>/dev/null)" = "$$(pwd -P)" || '$(PYTHON)' -m venv --clear $(VENV)
	@pwd -P > $(VENV)/folder
	@$(INSTALL) '.[embedded,test]'
	@cp $(VENV)/folder $@

$(VENV)/sdks: $(VENV)/installed
	@$(INSTALL) '.[embedded,test,sdks]'

# matplotlib and py-spy, which nothing else needs.
$(VENV)/benching: $(VENV)/installed
	@$(INSTALL) '.[embedded,test,bench]'
	@touch $@

$(VENV)/linters: $(VENV)/installed
	@$(INSTALL) '.[embedded,test,lint]'
	@touch $@
