# Airlift: every command that a person types. `make` alone lists them, by the headings below.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
VERSION ?= $(shell sed -n 's/^version: *//p' bundle/release.yml)
DOCKER ?= $(firstword $(wildcard /usr/bin/docker) docker)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

SHELL_FILES = $(shell git ls-files --cached --others --exclude-standard '*.sh' ':!stack/rendered') .ci/run
# Made from templates of the roles; the container says which shell runs them.
RENDERED_SHELL_FILES = $(shell git ls-files 'stack/rendered/*.sh')
DOCKER_FILES = $(shell git ls-files --cached --others --exclude-standard '*Dockerfile')
# What Ansible or systemd runs on hosts, with the oldest Python that preflight accepts there. All else runs on 3.11, which mypy knows.
HOST_CODE = roles/*/library roles/*/module_utils roles/swap_agent/files
HOST_PYTHON = $(shell sed -n 's/^preflight_python: "\(.*\)"$$/\1/p' roles/preflight/defaults/main.yml)

# ---------------------------------------------------------------- start here
.PHONY: help
help: ## list these commands
	@colour=0; if [ -t 1 ] && [ -z "$${NO_COLOR:-}" ]; then colour=1; fi; awk -v colour=$$colour -f scripts/help.awk $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing on this machine with apt and pip: container engine, tools, .venv
	@scripts/dev-setup.sh

.PHONY: setup-tests
setup-tests:
	@scripts/dev-setup.sh --tests

# ---------------------------------------------------------------- the site in containers
.PHONY: demo
demo: setup ## build, sign, carry, verify, install, upgrade and roll back a whole site in the lab on this machine
	@$(PY) scripts/demo.py

.PHONY: demo-down
demo-down: ## remove the demo's site, hosts, networks and keys
	@if [ -x $(PY) ]; then $(PY) scripts/demo.py --down; else echo "nothing to remove: no demo was run here"; fi

.PHONY: lab-up
lab-up: setup ## create the lab's empty hosts and networks only (SHAPE=one; molecule/lab/shapes has them)
	@$(VENV)/bin/ansible-playbook -i molecule/lab/inventory.yml molecule/lab/create.yml $(if $(SHAPE),-e lab_shape=$(SHAPE))

.PHONY: lab-down
lab-down: ## remove the lab
	@$(VENV)/bin/ansible-playbook -i molecule/lab/inventory.yml molecule/lab/destroy.yml

.PHONY: lab-shell
lab-shell: ## open a shell on a lab host: make lab-shell HOST=lab-jump
	@scripts/lab-shell.sh $(or $(HOST),lab-jump)

# ---------------------------------------------------------------- the service on this machine alone
.PHONY: stack
stack: setup ## check this machine, start the local stack and print its addresses; images from registries, or from Debian packages
	@scripts/setup-environment.sh

.PHONY: run
run: stack ## the same as `make stack`

.PHONY: stack-down
stack-down: ## remove the local stack with its data
	@scripts/setup-environment.sh --down --volumes

.PHONY: stack-config
stack-config: setup ## render stack/rendered/ from the roles' templates, and the image digests of docker-compose.yml from the lock
	@$(PY) -m scripts.stack_config

# ---------------------------------------------------------------- the bundle
.PHONY: bundle
bundle: setup ## build and sign dist/airlift-VERSION-amd64.tar (VERSION=1.2.0 SOURCE=auto|registry|debian ALLOW_ABSENT=grafana; key in AIRLIFT_SIGNING_KEY)
	@$(PY) -m bundle build --version $(VERSION) $(if $(SOURCE),--source $(SOURCE)) $(if $(ALLOW_ABSENT),--allow-absent $(ALLOW_ABSENT))

# ---------------------------------------------------------------- releases and pipelines
# Below this share of lines and branches that the unit tests reach, something was added without tests.
COVERAGE_MINIMUM ?= 75

.PHONY: version changelog-check release-check candidate scan image-save image-load push lock-check
version: ## print what this commit is called: version, serial, commit, image tag
	@python3 scripts/version.py
changelog-check: ## check that CHANGELOG.md is in order and begins with the version and serial of bundle/release.yml
	@python3 scripts/changelog.py check
release-check: ## check that this commit can be released: its section is dated, its tag fits (TAG=v1.1.0)
	@python3 scripts/changelog.py release $(TAG)
candidate: setup ## build a bundle, sign it with a throw-away key, verify it; SBOMs and reports go to dist/candidate/about
	@scripts/candidate.sh $(if $(SOURCE),--source $(SOURCE)) $(if $(ALLOW_ABSENT),--allow-absent $(ALLOW_ABSENT))
scan: ## fail when the candidate has known vulnerabilities that an update would end (.ci/vulnerabilities.json: accepted ones)
	@python3 scripts/scan_gate.py dist/candidate/about/vulnerabilities.json
image-save: ## write the service's image to dist/image.tar
	@mkdir -p dist && $(DOCKER) save --output dist/image.tar airlift/app:$(VERSION)
image-load: setup ## load the service's image from dist/image.tar
	@$(DOCKER) load --input dist/image.tar
push: ## push the service's image to REGISTRY, tagged with version and commit (REGISTRY_USER, REGISTRY_PASSWORD_FILE)
	@DOCKER=$(DOCKER) python3 scripts/push_image.py airlift/app:$(VERSION)

# ---------------------------------------------------------------- a deployment, on a jump host
# Only Python and make: a jump host has nothing else. Settings are DEPLOY_* variables, none of which is a secret.
DEPLOY := python3 -m scripts.deploy

.PHONY: deploy deploy-import deploy-preflight deploy-upgrade deploy-smoke deploy-rollback deploy-fetch deploy-notify
deploy: ## on a jump host: import, preflight, upgrade, smoke test, and a rollback if that fails (docs/DEPLOYMENT_STRATEGY.md)
	@$(DEPLOY) run
deploy-import: ## do the first part of `make deploy`: verify and import the bundle
	@$(DEPLOY) import
deploy-preflight: ## do the next part: check every host, print the plan; changes nothing
	@$(DEPLOY) preflight
deploy-upgrade: ## do the next part: upgrade, gate by gate
	@$(DEPLOY) upgrade
deploy-smoke: ## do the last part: send a client's requests to the site
	@$(DEPLOY) smoke
deploy-rollback: ## roll back to the previous release; with DEPLOY_RELEASE only from that one
	@$(DEPLOY) rollback
deploy-fetch: ## get the signed bundle of DEPLOY_RELEASE from its build, and check its attestation (needs `gh`)
	@$(DEPLOY) fetch
deploy-notify: ## send DEPLOY_RESULTS to the webhook whose address is in DEPLOY_WEBHOOK_FILE
	@$(DEPLOY) notify

# ---------------------------------------------------------------- the service alone
.PHONY: build
build: setup ## build the service's image as airlift/app:VERSION
	@$(PY) -m bundle image app --tag airlift/app:$(VERSION)

# ---------------------------------------------------------------- tests and proofs
.PHONY: lint
lint: setup ## run ruff, mypy, vermin, ansible-lint, yamllint, shellcheck, hadolint, actionlint, zizmor
	@$(MAKE) -j 2 --output-sync lint-roles lint-code

# What ansible-lint reads, and what says which version of it.
LINTED = roles playbooks molecule inventories stack requirements Makefile ansible.cfg .ansible-lint .yamllint '*.yml' '*.yaml'

.PHONY: lint-code lint-roles
lint-code:
	@ruff check .
	@ruff format --check .
	@mypy .
	@vermin --target=$(HOST_PYTHON)- --violations --quiet --no-tips -vvv $(HOST_CODE)
	@yamllint --strict .
	@shellcheck $(SHELL_FILES)
	@shellcheck --shell=sh $(RENDERED_SHELL_FILES)
	@python3 scripts/changelog.py check > /dev/null
	@for f in $(DOCKER_FILES); do hadolint "$$f" || exit 1; done
	@actionlint
	@zizmor --quiet --offline .github
# Takes one core for longer than all the others together, so it is left out while nothing that it reads differs from what passed.
lint-roles:
	@key=$$(git ls-files -z --cached --others --exclude-standard $(LINTED) | xargs -0 sha256sum 2> /dev/null | sha256sum | cut -c -64) || :; \
	if [ -e ".cache/lint/$$key" ]; then exit; fi; \
	ANSIBLE_INVENTORY_UNPARSED_FAILED=false ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=false ansible-lint --offline; \
	rm -rf .cache/lint; mkdir -p .cache/lint; touch ".cache/lint/$$key"

.PHONY: coverage
coverage: setup-tests ## run the unit tests with coverage: a table, coverage.xml, and a failure below COVERAGE_MINIMUM percent
	@pytest tests/unit -n 2 --cov --cov-report=term:skip-covered --cov-report=xml --cov-fail-under=$(COVERAGE_MINIMUM)

.PHONY: fmt
fmt: setup ## let ruff format the code and order imports; put each sentence of the pages on a line of its own
	@ruff check --fix --exit-zero . && ruff format . && $(PY) -m scripts.prose

.PHONY: test-unit
test-unit: setup-tests ## run the unit tests (real Postgres, Redis and ssh-keygen; no lab)
	@pytest tests/unit -n 2

.PHONY: test-molecule
test-molecule: setup ## test what the roles decide on their own, on one lab host
	@scripts/molecule-test.sh

.PHONY: test-stack
test-stack: setup-tests ## test the local stack, started for real: the contract's rows, isolation, traffic, checks of the set-up script
	@pytest tests/stack

.PHONY: test-site
test-site: setup ## test the end-to-end site: bundle, USB drive, install, every row and flow, bad releases, upgrades under load
	@pytest tests/e2e

.PHONY: test-fast
test-fast: setup-tests lint ## run lint, types and the unit tests that are not marked slow: for while you work
	@pytest tests/unit -n 2 -m "not slow"

.PHONY: test
test: setup-tests ## run everything that CI runs
	@scripts/test-all.sh

.PHONY: newcomer
newcomer: setup ## try the set-up of `make demo` and `make test` in a plain Debian 12 and 13 with git and make only
	@scripts/newcomer.sh

.PHONY: soak
soak: setup-tests ## run the long proofs: imports killed at every step, installs at many tasks, API and parsers fuzzed for long, broken services that the kill tests must find
	@AIRLIFT_SOAK=1 pytest tests/unit/bundle/test_bundle_kill.py tests/unit/bundle/test_bundle_verify.py tests/unit/bundle/test_bundle_bytes.py \
	  tests/unit/bundle/test_bundle_fuzz.py tests/unit/bundle/test_bundle_repeat.py tests/unit/app/test_app_schemathesis.py tests/unit/app/test_app_kills.py \
	  tests/unit/scripts/test_locked.py tests/soak
	@$(MAKE) soak-from soak-shapes

.PHONY: soak-from soak-address soak-install soak-power soak-pairs soak-settings soak-sick soak-stopped soak-maintenance soak-next soak-fuzz soak-deploy soak-jump soak-shapes soak-stack
soak-from: setup ## run the part of `make soak` that upgrades a site of an older tree to this tree and rolls back, under load (REV=COMMIT)
	@AIRLIFT_SOAK=1 pytest tests/soak/test_from.py
soak-address: setup ## run the part of `make soak` in which two edges share an address by keepalived, without a lab
	@AIRLIFT_SOAK=1 pytest tests/soak/test_shared_address.py
soak-install: setup ## run the part of `make soak` that kills an install at many tasks, and ends it with the same command
	@AIRLIFT_SOAK=1 pytest tests/soak/test_install_killed.py
soak-stack: setup-tests ## run `make test-stack` with its long part: restarts, replicas, alerts under traffic, a killed set-up, every failure of it (AIRLIFT_PROOFS=1 writes docs/proofs/)
	@AIRLIFT_SOAK=1 pytest tests/stack
soak-power: setup ## run the part of `make soak` that reboots hosts and cuts their power in every state of a site
	@AIRLIFT_SOAK=1 pytest tests/soak/test_power.py
soak-pairs: setup ## run the part of `make soak` that tries every change of a site before rollback, upgrade and install (AIRLIFT_PROOFS=1 writes docs/proofs/)
	@AIRLIFT_SOAK=1 pytest tests/soak/test_pairs.py
soak-settings: setup ## run the part of `make soak` that changes settings, passwords and certificates of a serving site, under load and long uploads
	@AIRLIFT_SOAK=1 pytest tests/soak/test_settings.py
soak-sick: setup ## run the part of `make soak` that makes an app host sick in every way, under load
	@AIRLIFT_SOAK=1 pytest tests/soak/test_sick_replica.py
soak-stopped: setup ## run the part of `make soak` that upgrades to more bad releases, under load
	@AIRLIFT_SOAK=1 pytest tests/soak/test_stopped.py
soak-maintenance: setup ## run the part of `make soak` that drains, reboots, adds and removes app hosts, under load (AIRLIFT_PROOFS=1 writes docs/proofs/)
	@AIRLIFT_SOAK=1 pytest tests/soak/test_maintenance.py
soak-jump: setup ## run the part of `make soak` in which the jump host loses its state and gets it back (AIRLIFT_PROOFS=1 writes docs/proofs/)
	@AIRLIFT_SOAK=1 pytest tests/soak/test_jump_host.py
soak-shapes: setup ## run the part of `make soak` that installs other shapes of a site: one host, four app hosts, a second edge (AIRLIFT_PROOFS=1 writes docs/proofs/)
	@AIRLIFT_SOAK=1 pytest tests/soak/test_shapes.py
soak-next: setup ## run the part of `make soak` that types what status prints, in the states that print it
	@AIRLIFT_SOAK=1 pytest tests/soak/test_next.py
soak-fuzz: setup-tests ## run the part of `make soak` that fuzzes each parser of foreign bytes, for AIRLIFT_FUZZ_SECONDS in all (an hour)
	@AIRLIFT_SOAK=1 pytest tests/soak/test_fuzz.py
soak-deploy: setup ## run the part of `make soak` that deploys as a pipeline's runner on the jump host does, good and bad releases, under load
	@AIRLIFT_SOAK=1 pytest tests/soak/test_deploy.py

.PHONY: kills
kills: setup ## kill everything with -9 while 2,200 jobs are accepted and run; writes what was lost (nothing) to docs/benchmarks/
	@$(PY) -m tests.kill --write

.PHONY: bench
bench: setup ## measure with the demo's bundle, beside other tools and an older tree (REV=COMMIT); writes docs/benchmarks/
	@$(PY) scripts/bench.py && $(PY) scripts/bench_service.py && $(PY) -m scripts.costs --write

.PHONY: train
train: setup ## train the service's models again; writes app/models/ and the numbers of docs/MODEL_CARD.md
	@$(PY) scripts/train_models.py

.PHONY: bench-service
bench-service: setup ## run the part of `make bench` that measures the service alone
	@$(PY) scripts/bench_service.py

# Packages that a benchmark's peer has in our version; the others are its own.
PEERS_SHARE := fastapi|gunicorn|httptools|numpy|prometheus-client|pydantic|scikit-learn|scipy|starlette|uvicorn|uvicorn-worker|uvloop

.PHONY: lock
lock: ## renew the hash locks of requirements/*.in (needs `uv` on PATH; review the diff)
	@for pair in requirements/dev:requirements/dev app/requirements:app/requirements requirements/controller:requirements/controller; do \
	  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    $$([ "$${pair%%:*}" = requirements/dev ] || echo -c requirements/dev.txt) "$${pair%%:*}.in" -o "$${pair##*:}.txt"; done
	@for peer in docs/benchmarks/baseline docs/benchmarks/litserve docs/benchmarks/bentoml; do \
	  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    -c <(sed -nE 's/^(($(PEERS_SHARE))==[^\]*[^\ ]) *\\$$/\1/p' requirements/dev.txt) $$peer/requirements.in -o $$peer/requirements.txt; done

lock-check: setup ## check that the tags of bundle/images.lock.yml still name its digests
	@$(PY) -m bundle lock --check

# ---------------------------------------------------------------- documents and leftovers
.PHONY: pictures print-page
pictures: setup ## draw docs/pictures/ from the newest demo, its bundle and the benchmark (needs chromium for one of them)
	@$(PY) scripts/pictures.py
print-page: setup ## make docs/PRINT.html, one side of A4 for the USB drive, from docs/INSTALL.md
	@$(PY) scripts/print_page.py

.PHONY: clean
clean: ## remove build results and caches of this tree (images and downloads stay)
	@rm -rf dist wheels .cache/lint .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
