# The build matrix and every verb. `make help` lists them.
#
# A folder images/NAME with a Dockerfile is an image. Its parent is the default of its own `ARG PARENT=`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory $(if $(filter 0,$(MAKELEVEL)),--jobs=$(shell nproc))
# These two remove and rewrite what other goals read, so that in `make clean build-all` one comes after the other.
ifneq ($(filter clean lock,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif
.DEFAULT_GOAL := help

VERSION := 0.1.0

# The variants, the default first: a Debian suite and the Python it brings.
VARIANTS := trixie bookworm
python/trixie := 3.13
python/bookworm := 3.11
PLATFORMS := linux/amd64 linux/arm64

# Whose repository this is on GitHub, and so whose name the public images bear; empty in a clone from elsewhere.
REPOSITORY := $(shell git remote get-url origin 2>/dev/null | sed -nE 's,.*github\.com[:/]([^/]+/[^/]+)$$,\1,p')
OWNER := $(shell sed -E 's,/.*,,;s,.*,\L&,' <<<'$(REPOSITORY)')
SOURCE := $(if $(REPOSITORY),https://github.com/$(REPOSITORY:.git=))

# What a call may set.
DEBIAN ?= $(firstword $(VARIANTS))#  trixie or bookworm; build-all and test take both unless it or TAG is given
PLATFORM ?= linux/$(NATIVE)#           what to build for; on another machine than this its tags end in -arm64 or -amd64
REGISTRY ?= $(if $(OWNER),ghcr.io/$(OWNER))#   where images are public: `make push` pushes to REGISTRY/optml/IMAGE
TAG ?=#                              the tag to build and push, instead of the variant's name

# The facts of this machine that every recipe shares.
export SOURCE_DATE_EPOCH ?= 1767225600
# SageMaker takes no index that holds attestations beside the image.
export BUILDX_NO_DEFAULT_ATTESTATIONS := 1
IMAGES := $(patsubst images/%/Dockerfile,%,$(wildcard images/*/Dockerfile))
SUITES := $(filter-out bench images support __pycache__,$(patsubst tests/%/,%,$(wildcard tests/*/)))
CHOSEN := $(if $(filter file,$(origin DEBIAN))$(TAG),$(if $(TAG),$(DEBIAN),$(VARIANTS)),$(DEBIAN))
NATIVE := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
ARCH := $(notdir $(PLATFORM))
parent = $(shell sed -n 's/^ARG PARENT=//p' images/$1/Dockerfile)
# What is built for another machine than this has tags of its own.
tag = $(or $(TAG),$1)$(if $(filter-out $(NATIVE),$(ARCH)),-$(ARCH))
# The default variant is :latest, too.
tags = $(call tag,$1) $(if $(TAG)$(filter-out $(NATIVE),$(ARCH)),,$(if $(filter $1,$(firstword $(VARIANTS))),latest))
rootfs = optml/rootfs:$(if $(TAG),$(TAG)-)$1-$(ARCH)
# A release has a tag of its own, which never changes.
release = $(VERSION)-$1-py$(python/$1)
# The public name of an image's parent, which stays the same for all who build the release.
base_name = $(if $(call parent,$2),$(if $(OWNER),ghcr.io/$(OWNER)/)optml/$(call parent,$2):$(call release,$1))
VENV := .venv/bin
INSTALL := $(VENV)/python -m pip install --quiet --disable-pip-version-check --no-compile --only-binary :all: --require-hashes

$(if $(filter-out $(VARIANTS),$(DEBIAN)),$(error DEBIAN=$(DEBIAN) is unknown; choose one of: $(VARIANTS)))

##@ Start here

.PHONY: demo
demo: ## Build what is missing, train a real model on real data, serve it and ask it
demo: image/$(DEBIAN)/cpu-train image/$(DEBIAN)/cpu-serve .venv/made
	@examples/breast-cancer/demo $(call tag,$(DEBIAN))

.PHONY: test
test: ## Build every image and run every test but the long ones; PYTEST='-k word' passes options to pytest
test: test-tools .venv/tests
	@scripts/run-tests --without-long $(PYTEST)

# The folders of tests, one verb each, with their long tests; tests/images has one for each image, below.
.PHONY: $(SUITES:%=test/%)
$(SUITES:%=test/%): test/%: test-tools .venv/tests
	@scripts/run-tests tests/$* $(PYTEST)
test/arm64: arm64

# What is to be published, in place of what the Engine has built.
.PHONY: test/release
test/release: test-tools .venv/tests verify-reproducible
	@$(foreach v,$(CHOSEN),for image in $(IMAGES); do \
	    skopeo copy --quiet dir:$(call built,$v)/$$image docker-daemon:optml/$$image:$(call tag,$v); done;)
	@scripts/run-tests --without-long $(PYTEST)

# As far as it is tested; more would take long by emulation.
.PHONY: arm64
arm64: build-all
	@$(MAKE) build/slim-serve PLATFORM=linux/arm64

.PHONY: check
check: ## Check any image against the /opt/ml contract: make check IMAGE=my-image CHECK='--level hardened'
check: engine .venv/tests
	@scripts/check $(or $(IMAGE),$(error name an image, as in: make check IMAGE=my-image)) $(CHECK)

.PHONY: bench
bench: ## Measure optml against its peers, in turn; QUICK=1 takes minutes, BENCH='--only serving' passes options
bench: build-all .venv/bench
	@for tool in wrk skopeo buildah; do command -v $$tool >/dev/null || scripts/apt-install $$tool; done
	@$(VENV)/python -m tests.bench $(if $(QUICK),--quick) $(BENCH)

##@ Images

.PHONY: build-all
build-all: ## Build every image, in every variant or in DEBIAN=trixie|bookworm
build-all: $(foreach variant,$(CHOSEN),$(foreach name,$(IMAGES),image/$(variant)/$(name)))

define image_verbs
.PHONY: build/$1 test/$1 lint/$1 size/$1
build/$1: image/$(DEBIAN)/$1
test/$1: build/$1 .venv/tests ; @scripts/run-tests tests/images $(PYTEST) --image $1
lint/$1: .venv/tests ; $(VENV)/hadolint images/$1/Dockerfile
size/$1: build/$1 ; @scripts/size --packages --tag $(call tag,$(DEBIAN)) $1
endef
$(foreach name,$(IMAGES),$(eval $(call image_verbs,$(name))))

# One rule for each cell of the matrix. A parent is built before its children, whatever runs beside it.
define cell
.PHONY: image/$1/$2
image/$1/$2: build/wheels/$(ARCH)/.made $(if $(call parent,$2),image/$1/$(call parent,$2),rootfs/$1)
	@scripts/build-image $2 $(PLATFORM) $(VERSION) '$(SOURCE)' '$(call base_name,$1,$2)' \
	    $(if $(call parent,$2),PARENT=optml/$(call parent,$2):$(call tag,$1),ROOTFS=$(call rootfs,$1)) \
	    $(call tags,$1)
endef
$(foreach variant,$(VARIANTS),$(foreach name,$(IMAGES),$(eval $(call cell,$(variant),$(name)))))

# Where an image comes from that has no parent.
.PHONY: $(VARIANTS:%=rootfs/%)
$(VARIANTS:%=rootfs/%): rootfs/%: debs/% engine $(if $(filter-out $(NATIVE),$(ARCH)),emulator)
	@scripts/rootfs $* $(ARCH) $(call rootfs,$*)

.PHONY: $(VARIANTS:%=debs/%)
$(VARIANTS:%=debs/%): debs/%: .venv/made
	@[[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || scripts/apt-install debian-archive-keyring
	@scripts/debs fetch $* $(ARCH)

build/wheels/$(ARCH)/.made: $(wildcard images/*/requirements.lock) scripts/wheels | .venv/made
	@scripts/wheels $(ARCH) $(foreach variant,$(VARIANTS),$(python/$(variant)))

.PHONY: size
size: ## Show every image layer by layer and package by package, against its budget
size: build-all
	@$(foreach variant,$(CHOSEN),scripts/size --packages --tag $(call tag,$(variant)) $(IMAGES);)

.PHONY: verify-reproducible
verify-reproducible: ## Build every image twice, on another day in another place, and compare the digests
verify-reproducible: locked build/wheels/$(ARCH)/.made skopeo
	@command -v buildah >/dev/null || scripts/apt-install buildah runc
	@dpkg --status libfaketime >/dev/null 2>&1 || scripts/apt-install libfaketime
	@$(foreach v,$(CHOSEN),scripts/verify-reproducible $v $(ARCH) $(VERSION) '$(SOURCE)' \
	    $(foreach i,$(IMAGES),$i:$(call parent,$i):$(call base_name,$v,$i));)

.PHONY: verify-published
verify-published: ## Build the release that is checked out, and compare it with what REGISTRY has under its name
verify-published: $(if $(REGISTRY),push/release,push/nowhere)
	@$(MAKE) verify-reproducible
	@code=0; $(foreach v,$(CHOSEN),scripts/push compare $(REGISTRY) $(call release,$v) $(ARCH) $(call built,$v) $(IMAGES) || code=1;) exit $$code

# sbom/write and scan/write are of the images that are there, such as those of test/release, and build none.
.PHONY: sbom sbom/write
sbom: ## Write what every image is made of to build/sbom, as CycloneDX; fails where a file belongs to nothing
sbom: build-all
sbom sbom/write: .venv/tests
	@$(foreach variant,$(CHOSEN),$(VENV)/python scripts/sbom --tag $(call tag,$(variant)) $(IMAGES);)

.PHONY: scan scan/write
scan: ## Look for known vulnerabilities in what `make sbom` wrote; wants grype, or GRYPE=/its/path
scan: sbom
# It reads what sbom/write wrote, in this call or in an earlier one.
scan/write: $(filter sbom sbom/write,$(MAKECMDGOALS))
scan scan/write: .venv/tests
	@scripts/scan $(foreach variant,$(CHOSEN),$(IMAGES:%=build/sbom/%-$(call tag,$(variant)).json))

.PHONY: matrix
matrix: ## Print the build matrix as JSON
	@echo '[$(subst }$() {,}$(comma) {,$(foreach v,$(CHOSEN),$(foreach i,$(IMAGES),$(call matrix_entry,$v,$i))))]'
comma := ,
matrix_entry = {"image": "$2", "variant": "$1", "parent": $(if $(call parent,$2),"$(call parent,$2)",null), "tag": "optml/$2:$(call tag,$1)", "python": "$(python/$1)", "platforms": [$(subst " ,"$(comma) ,$(patsubst %,"%",$(PLATFORMS)))]}

# What is published is what the locks give, and not what the archive has moved on to.
.PHONY: locked
locked: $(CHOSEN:%=debs/%)
	@differs=$$(cat $(CHOSEN:%=build/debs/%-$(ARCH).differs) 2>/dev/null || true); \
	if [[ $$differs ]]; then \
	    printf 'error: these packages differ from images/*/packages.lock; run make lock:\n%s\n' "$$differs" >&2; exit 1; fi

# Where verify-reproducible leaves what is to be published.
built = build/release/$1-$(ARCH)
# The tags that move on to the next release.
moving = $1 $(if $(filter $1,$(firstword $(VARIANTS))),latest $(basename $(VERSION)))

.PHONY: push
push: ## Push every image to REGISTRY=…, as release VERSION, which must be the git tag that is checked out
push: push/machine
	@$(MAKE) push/index

# Whether this commit may be published at all.
.PHONY: push/release
push/release:
	@scripts/push release $(VERSION)

# What is built here for one machine, and twice the same.
.PHONY: push/machine
push/machine: $(if $(REGISTRY),locked,push/nowhere)
	@$(MAKE) push/release
	@$(MAKE) verify-reproducible
	@$(foreach v,$(CHOSEN),scripts/push machine $(REGISTRY) $(VERSION) $(call release,$v) $(ARCH) $(call built,$v) $(IMAGES);)

# All machines under one tag; MACHINES=amd64 arm64 where both were pushed.
MACHINES ?= $(ARCH)
.PHONY: push/index
push/index: $(if $(REGISTRY),engine,push/nowhere)
	@$(MAKE) push/release
	@$(foreach v,$(CHOSEN),scripts/push index $(REGISTRY) $(call release,$v) '$(MACHINES)' '$(call moving,$v)' $(IMAGES);)

# The password is read from the input.
.PHONY: push/login
push/login: $(if $(REGISTRY),engine,push/nowhere)
	@docker login $(firstword $(subst /, ,$(REGISTRY))) --username $(USERNAME) --password-stdin

.PHONY: push/nowhere
push/nowhere:
	@echo 'error: say where to, as in: make push REGISTRY=123456789012.dkr.ecr.eu-west-1.amazonaws.com' >&2; exit 2

##@ This repository

.PHONY: lint
lint: ## Check Dockerfiles, shell, Python and workflows
lint: .venv/tests
	$(VENV)/hadolint images/*/Dockerfile $(wildcard examples/*/*Dockerfile)
	$(VENV)/shellcheck $$(grep -lE '^#!/bin/(ba)?sh' images/* images/check/entrypoint runtime/bin/* scripts/* examples/*/* tests/distributed/slurm/* .ci/run 2>/dev/null)
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy runtime images/check
	$(VENV)/mypy --scripts-are-modules $$(grep -l -d skip '^#!.*python3' scripts/*)
	$(VENV)/zizmor --offline --quiet --persona=auditor .github/workflows
	$(VENV)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/check-jsonschema --quiet --builtin-schema vendor.renovate .github/renovate.json

.PHONY: lock
lock: ## Write every lock anew, with the newest versions and their hashes: requirements.lock and packages.lock
lock: .venv/tests
	scripts/debs lock $(VARIANTS)
	for file in images/*/requirements.in tests/requirements.in tests/bench/requirements.in tests/clients/*.in; do \
	    $(VENV)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	        --only-binary :all: --allow-unsafe --excludes tests/clients/excluded.txt --no-emit-index-url \
	        --no-emit-find-links --no-emit-build-options --custom-compile-command "make lock" \
	        "$$file" -o "$${file%.in}.lock"; \
	done

.PHONY: clean
clean: ## Remove what was built: images named optml/*, build/ and .venv/
	@docker images --format '{{.Repository}}:{{.Tag}}' --filter reference='optml/*' | xargs --no-run-if-empty docker rmi
	rm -rf build .venv

.PHONY: help
help: ## Print this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' Makefile
	@printf '\n  make build/NAME, test/NAME, lint/NAME, size/NAME for one image: %s\n' '$(IMAGES)'
	@printf '  make test/SUITE for one folder of tests: %s\n' '$(SUITES)'
	@printf '\nVariables\n'
	@awk 'match($$0, / \?=.*# +/) && !/export/ {name = substr($$0, 1, RSTART); printf "  %-13s%s\n", name, substr($$0, RSTART + RLENGTH)}' Makefile

# What the recipes above need on this machine.

.PHONY: engine
engine:
	@scripts/engine

.PHONY: skopeo
skopeo:
	@command -v skopeo >/dev/null || scripts/apt-install skopeo

.PHONY: emulator
emulator:
	@scripts/emulate $(ARCH)

# What tests run on this machine: a browser for the server's page, whose tests skip where there is none, and a
# compiler for the driver of GPUs that are none. After the images, since they may install packages, too.
.PHONY: test-tools
test-tools: build-all
	@command -v chromium-headless-shell chromium >/dev/null || scripts/apt-install chromium-headless-shell || \
	    echo 'no browser: the page of the server will not be tested' >&2
	@command -v gcc >/dev/null || scripts/apt-install gcc libc6-dev

.venv/made: scripts/venv
	@scripts/venv
	@touch $@

.venv/bench: tests/bench/requirements.lock .venv/tests
	@$(INSTALL) -r $<
	@touch $@

.venv/tests: tests/requirements.lock .venv/made
	@echo "installing the tools of tests/requirements.lock into .venv"
	@$(INSTALL) -r $<
	@touch $@
