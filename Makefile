# Airlift: every command a person types, one line each. `make` alone lists them.
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

.PHONY: help
help: ## list these commands
	@[ -t 1 ] && [ -z "$${NO_COLOR:-}" ] && [ "$${TERM:-dumb}" != dumb ] && on=$$'\033[1m' off=$$'\033[0m' || on= off=; \
	awk -v on="$$on" -v off="$$off" 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %s%-16s%s %s\n", on, $$1, off, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing on this machine: engine, tools, .venv (asks apt; idempotent)
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
lab-up: setup ## raise the lab's empty hosts and networks only
	@$(VENV)/bin/ansible-playbook -i molecule/lab/inventory.yml molecule/lab/create.yml

.PHONY: lab-down
lab-down: ## remove the lab
	@$(VENV)/bin/ansible-playbook -i molecule/lab/inventory.yml molecule/lab/destroy.yml

.PHONY: lab-shell
lab-shell: ## a shell on a lab host: make lab-shell HOST=lab-jump
	@scripts/lab-shell.sh $(or $(HOST),lab-jump)

# ---------------------------------------------------------------- the service on this machine alone
.PHONY: stack
stack: setup ## start the local stack (docker-compose.yml) and say where it answers; images from registries, or from Debian packages
	@scripts/setup-environment.sh

.PHONY: run
run: stack ## the same as `make stack`

.PHONY: stack-down
stack-down: ## remove the local stack with its data
	@scripts/setup-environment.sh --down --volumes

.PHONY: stack-config
stack-config: setup ## render stack/rendered/ again from the roles' templates, and the image digests of docker-compose.yml from the lock
	@$(PY) -m scripts.stack_config

# ---------------------------------------------------------------- the bundle
.PHONY: bundle
bundle: setup ## build and sign dist/airlift-VERSION-amd64.tar (VERSION=1.2.0 SOURCE=auto|registry|debian ALLOW_ABSENT=grafana; key in AIRLIFT_SIGNING_KEY)
	@$(PY) -m bundle build --version $(VERSION) $(if $(SOURCE),--source $(SOURCE)) $(if $(ALLOW_ABSENT),--allow-absent $(ALLOW_ABSENT))

# ---------------------------------------------------------------- a release, and what pipelines ask for
# Below this share of lines and branches that the unit tests reach, something was added without tests.
COVERAGE_MINIMUM ?= 75

.PHONY: version changelog-check release-check candidate scan image-save image-load push lock-check
version: ## what this commit is called: version, serial, commit, the image's tag
	@python3 scripts/version.py
changelog-check: ## CHANGELOG.md is in order and begins with the version and serial of bundle/release.yml
	@python3 scripts/changelog.py check
release-check: ## this commit may be released: its section is dated, its tag fits (TAG=v1.1.0)
	@python3 scripts/changelog.py release $(TAG)
candidate: setup ## build a bundle, sign it with a throw-away key, verify it; SBOMs and reports go to dist/candidate/about
	@scripts/candidate.sh $(if $(SOURCE),--source $(SOURCE)) $(if $(ALLOW_ABSENT),--allow-absent $(ALLOW_ABSENT))
scan: ## fail when the candidate has known vulnerabilities that an update would end (.ci/vulnerabilities.json: accepted ones)
	@python3 scripts/scan_gate.py dist/candidate/about/vulnerabilities.json
image-save: ## write the service's image to dist/image.tar
	@mkdir -p dist && $(DOCKER) save --output dist/image.tar airlift/app:$(VERSION)
image-load: setup ## take the service's image from dist/image.tar
	@$(DOCKER) load --input dist/image.tar
push: ## push the service's image to REGISTRY, tagged with version and commit (REGISTRY_USER, REGISTRY_PASSWORD_FILE)
	@DOCKER=$(DOCKER) python3 scripts/push_image.py airlift/app:$(VERSION)

# ---------------------------------------------------------------- a deployment, on a jump host
# Only Python and make: a jump host has nothing else. Settings are DEPLOY_* variables, none of which is a secret.
DEPLOY := python3 -m scripts.deploy

.PHONY: deploy deploy-import deploy-preflight deploy-upgrade deploy-smoke deploy-rollback deploy-fetch deploy-notify
deploy: ## on a jump host: import, preflight, upgrade, smoke test, and a rollback if that fails (docs/DEPLOYMENT_STRATEGY.md)
	@$(DEPLOY) run
deploy-import: ## the part of `make deploy` that verifies and imports the bundle
	@$(DEPLOY) import
deploy-preflight: ## the part that checks every host and makes the plan; changes nothing
	@$(DEPLOY) preflight
deploy-upgrade: ## the part that swaps the release in, gate by gate
	@$(DEPLOY) upgrade
deploy-smoke: ## the part that asks the site what a client would
	@$(DEPLOY) smoke
deploy-rollback: ## go back to the previous release; with DEPLOY_RELEASE only from that one
	@$(DEPLOY) rollback
deploy-fetch: ## get the signed bundle of DEPLOY_RELEASE from its build, and check its attestation (needs `gh`)
	@$(DEPLOY) fetch
deploy-notify: ## send DEPLOY_RESULTS to the webhook whose address is in DEPLOY_WEBHOOK_FILE
	@$(DEPLOY) notify

# ---------------------------------------------------------------- the service alone
.PHONY: build
build: setup ## build the service's image as airlift/app:VERSION
	@$(PY) -m bundle image app --tag airlift/app:$(VERSION)

# ---------------------------------------------------------------- proofs
.PHONY: lint
lint: setup ## ruff, mypy, ansible-lint, yamllint, shellcheck, hadolint, actionlint, zizmor
	@$(MAKE) -j 2 --output-sync lint-roles lint-code

.PHONY: lint-code lint-roles
lint-code:
	@ruff check .
	@ruff format --check .
	@mypy .
	@yamllint --strict .
	@shellcheck $(SHELL_FILES)
	@shellcheck --shell=sh $(RENDERED_SHELL_FILES)
	@python3 scripts/changelog.py check > /dev/null
	@for f in $(DOCKER_FILES); do hadolint "$$f" || exit 1; done
	@actionlint
	@zizmor --quiet --offline .github
# Takes one core for longer than all the others together.
lint-roles:
	@ANSIBLE_INVENTORY_UNPARSED_FAILED=false ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=false ansible-lint --offline

.PHONY: coverage
coverage: setup-tests ## the unit tests with coverage: a table, coverage.xml, and a failure below COVERAGE_MINIMUM percent
	@pytest tests/unit -n 2 --cov --cov-report=term:skip-covered --cov-report=xml --cov-fail-under=$(COVERAGE_MINIMUM)

.PHONY: fmt
fmt: setup ## let ruff mend format and imports
	@ruff check --fix --exit-zero . && ruff format .

.PHONY: test-unit
test-unit: setup-tests ## unit tests (real Postgres, Redis and ssh-keygen; no lab)
	@pytest tests/unit -n 2

.PHONY: test-molecule
test-molecule: setup ## what the roles decide on their own, on one lab host
	@scripts/molecule-test.sh

.PHONY: test-stack
test-stack: setup-tests ## the local stack, raised for real: the contract's rows, isolation, restarts, the set-up script's exit codes
	@pytest tests/stack

.PHONY: test-site
test-site: setup ## the end-to-end site: bundle, stick, install, every row and flow, bad releases, upgrades under load
	@pytest tests/e2e

.PHONY: test-fast
test-fast: setup-tests lint ## lint, types and the unit tests that are not marked slow: what to run while you work
	@pytest tests/unit -n 2 -m "not slow"

.PHONY: test
test: setup-tests ## everything that CI runs
	@scripts/test-all.sh

.PHONY: newcomer
newcomer: setup ## the set-up of `make demo` and `make test` as on a fresh machine: plain Debian 12 and 13 with git and make only
	@scripts/newcomer.sh

.PHONY: soak
soak: setup-tests ## the long proofs: imports killed at every step, installs at many tasks, the API and each parser fuzzed for long, broken services that the kill tests must notice
	@AIRLIFT_SOAK=1 pytest tests/unit/bundle/test_bundle_kill.py tests/unit/bundle/test_bundle_verify.py tests/unit/bundle/test_bundle_bytes.py \
	  tests/unit/bundle/test_bundle_fuzz.py tests/unit/bundle/test_bundle_repeat.py tests/unit/app/test_app_schemathesis.py tests/unit/app/test_app_kills.py tests/soak

.PHONY: soak-power soak-pairs soak-sick soak-next soak-fuzz soak-deploy soak-stack
soak-stack: setup-tests ## the long part of `make test-stack`: alerts under traffic, set-up killed half way, every failure of it
	@AIRLIFT_SOAK=1 pytest tests/stack
soak-power: setup ## the part of `make soak` that reboots hosts and cuts their power in every state of a site
	@AIRLIFT_SOAK=1 pytest tests/soak/test_power.py
soak-pairs: setup ## the part of `make soak` that tries every change of a site before rollback, upgrade and install (AIRLIFT_PROOFS=1 writes docs/proofs/)
	@AIRLIFT_SOAK=1 pytest tests/soak/test_pairs.py
soak-sick: setup ## the part of `make soak` that makes an app host sick in every way, under load
	@AIRLIFT_SOAK=1 pytest tests/soak/test_sick_replica.py
soak-next: setup ## the part of `make soak` that types what status prints, in the states that print it
	@AIRLIFT_SOAK=1 pytest tests/soak/test_next.py
soak-fuzz: setup-tests ## the part of `make soak` that fuzzes each parser of foreign bytes, for AIRLIFT_FUZZ_SECONDS in all (an hour)
	@AIRLIFT_SOAK=1 pytest tests/soak/test_fuzz.py
soak-deploy: setup ## the part of `make soak` that deploys as a pipeline's runner on the jump host does, good and bad releases, under load
	@AIRLIFT_SOAK=1 pytest tests/soak/test_deploy.py

.PHONY: kills
kills: setup ## kill -9 everything while 2,200 jobs are taken and run; writes what was lost (nothing) into docs/benchmarks/
	@$(PY) -m tests.kill --write

.PHONY: bench
bench: setup ## measure beside the peers' ways with the demo's bundle; writes docs/benchmarks/
	@$(PY) scripts/bench.py && $(PY) scripts/bench_service.py

.PHONY: train
train: setup ## train the service's models again; writes app/models/ and the numbers of docs/MODEL_CARD.md
	@$(PY) scripts/train_models.py

.PHONY: bench-service
bench-service: setup ## the part of `make bench` that measures the service alone
	@$(PY) scripts/bench_service.py

# What a benchmark's peer has in our version; the rest is its own.
PEERS_SHARE := fastapi|gunicorn|httptools|numpy|prometheus-client|pydantic|scikit-learn|scipy|starlette|uvicorn|uvicorn-worker|uvloop

.PHONY: lock
lock: ## renew the hash locks of requirements/*.in (needs `uv` on PATH; review the diff)
	@for pair in requirements/dev:requirements/dev app/requirements:app/requirements requirements/controller:requirements/controller; do \
	  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    $$([ "$${pair%%:*}" = requirements/dev ] || echo -c requirements/dev.txt) "$${pair%%:*}.in" -o "$${pair##*:}.txt"; done
	@for peer in docs/benchmarks/baseline docs/benchmarks/litserve docs/benchmarks/bentoml; do \
	  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    -c <(sed -nE 's/^(($(PEERS_SHARE))==[^\]*[^\ ]) *\\$$/\1/p' requirements/dev.txt) $$peer/requirements.in -o $$peer/requirements.txt; done

lock-check: setup ## whether the tags of bundle/images.lock.yml still name its digests
	@$(PY) -m bundle lock --check

.PHONY: clean
clean: ## remove build results and caches of this tree (images and downloads stay)
	@rm -rf dist wheels .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
