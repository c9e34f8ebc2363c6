# The build matrix and all targets; `make help` lists them.
#
# Each folder images/NAME with a Dockerfile is an image. Its parent is the default of its `ARG PARENT=`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory $(if $(filter 0,$(MAKELEVEL)),--jobs=$(shell nproc))
# These two remove or rewrite what other targets read, so `make clean build-all` must run in order.
ifneq ($(filter clean lock,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif
.DEFAULT_GOAL := help

VERSION := 0.1.0

# The variants, default first: a Debian suite and its Python.
VARIANTS := trixie bookworm
python/trixie := 3.13
python/bookworm := 3.11
PLATFORMS := linux/amd64 linux/arm64

# OWNER/NAME on GitHub; the owner is part of the public images' names. Empty in a clone from elsewhere.
REPOSITORY := $(shell git remote get-url origin 2>/dev/null | sed -nE 's,.*github\.com[:/]([^/]+/[^/]+)$$,\1,p')
OWNER := $(shell sed -E 's,/.*,,;s,.*,\L&,' <<<'$(REPOSITORY)')
SOURCE := $(if $(REPOSITORY),https://github.com/$(REPOSITORY:.git=))

# Variables for the command line.
DEBIAN ?= $(firstword $(VARIANTS))#  trixie or bookworm; build-all and test use both unless DEBIAN or TAG is set
PLATFORM ?= linux/$(NATIVE)#           the platform to build for; the tags of a foreign one end in -arm64 or -amd64
REGISTRY ?= $(if $(OWNER),ghcr.io/$(OWNER))#   the registry: `make push` pushes to REGISTRY/optml/IMAGE
TAG ?=#                              the tag of the built images, instead of the variant's name

# The date of everything in the images.
export SOURCE_DATE_EPOCH ?= 1767225600
# SageMaker rejects an index that holds attestations beside the image.
export BUILDX_NO_DEFAULT_ATTESTATIONS := 1
IMAGES := $(patsubst images/%/Dockerfile,%,$(wildcard images/*/Dockerfile))
SUITES := $(filter-out bench images support __pycache__,$(patsubst tests/%/,%,$(wildcard tests/*/)))
CHOSEN := $(if $(TAG)$(filter-out file,$(origin DEBIAN)),$(DEBIAN),$(VARIANTS))
NATIVE := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
ARCH := $(notdir $(PLATFORM))
parent = $(shell sed -n 's/^ARG PARENT=//p' images/$1/Dockerfile)
# Images for a foreign architecture have their own tags.
tag = $(or $(TAG),$1)$(if $(filter-out $(NATIVE),$(ARCH)),-$(ARCH))
# The default variant is also tagged latest.
tags = $(call tag,$1) $(if $(TAG)$(filter-out $(NATIVE),$(ARCH)),,$(if $(filter $1,$(firstword $(VARIANTS))),latest))
rootfs = optml/rootfs:$(if $(TAG),$(TAG)-)$1-$(ARCH)
# The tag of a release, which never changes.
release = $(VERSION)-$1-py$(python/$1)
# The public name of an image's parent, the same wherever the release is built.
base_name = $(if $(call parent,$2),$(if $(OWNER),ghcr.io/$(OWNER)/)optml/$(call parent,$2):$(call release,$1))
VENV := .venv/bin
INSTALL := $(VENV)/python -m pip install --quiet --disable-pip-version-check --no-compile --only-binary :all: --require-hashes

$(if $(filter-out $(VARIANTS),$(DEBIAN)),$(error DEBIAN=$(DEBIAN) is unknown; choose one of: $(VARIANTS)))

##@ Start here

.PHONY: demo
demo: ## Build what is missing, train a real model on real data, serve it and query it
demo: image/$(DEBIAN)/cpu-train image/$(DEBIAN)/cpu-serve .venv/made
	@examples/breast-cancer/demo $(call tag,$(DEBIAN))

.PHONY: test
test: ## Build every image and run all tests except the long ones; PYTEST='-k word' passes options to pytest
test: test-tools .venv/tests
	@scripts/run-tests --without-long $(PYTEST)

# Each folder of tests, including its long tests; tests/images has a target for each image, below.
.PHONY: $(SUITES:%=test/%)
$(SUITES:%=test/%): test/%: test-tools .venv/tests
	@scripts/run-tests tests/$* $(PYTEST)
test/arm64: arm64

# Tests the images that will be published, in place of those that the Engine has built.
.PHONY: test/release
test/release: test-tools .venv/tests verify-reproducible
	@$(foreach v,$(CHOSEN),for image in $(IMAGES); do \
	    skopeo copy --quiet dir:$(call built,$v)/$$image docker-daemon:optml/$$image:$(call tag,$v); done;)
	@scripts/run-tests --without-long $(PYTEST)

# Only what tests/arm64 needs: building under emulation is slow.
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
build-all: ## Build every image, in every variant or only in DEBIAN=trixie|bookworm
build-all: $(foreach variant,$(CHOSEN),$(foreach name,$(IMAGES),image/$(variant)/$(name)))

define image_verbs
.PHONY: build/$1 test/$1 lint/$1 size/$1
build/$1: image/$(DEBIAN)/$1
test/$1: build/$1 .venv/tests ; @scripts/run-tests tests/images $(PYTEST) --image $1
lint/$1: .venv/tests ; $(VENV)/hadolint images/$1/Dockerfile
size/$1: build/$1 ; @scripts/size --packages --tag $(call tag,$(DEBIAN)) $1
endef
$(foreach name,$(IMAGES),$(eval $(call image_verbs,$(name))))

# One rule for each cell of the matrix. A parent is built before its children, also under --jobs.
define cell
.PHONY: image/$1/$2
image/$1/$2: build/wheels/$(ARCH)/.made $(if $(call parent,$2),image/$1/$(call parent,$2),rootfs/$1)
	@scripts/build-image $2 $(PLATFORM) $(VERSION) '$(SOURCE)' '$(call base_name,$1,$2)' \
	    $(if $(call parent,$2),PARENT=optml/$(call parent,$2):$(call tag,$1),ROOTFS=$(call rootfs,$1)) \
	    $(call tags,$1)
endef
$(foreach variant,$(VARIANTS),$(foreach name,$(IMAGES),$(eval $(call cell,$(variant),$(name)))))

# The root file system, for an image without a parent.
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
size: ## Show the size of every image by layer and by package, against its budget
size: build-all
	@$(foreach variant,$(CHOSEN),scripts/size --packages --tag $(call tag,$(variant)) $(IMAGES);)

.PHONY: verify-reproducible
verify-reproducible: ## Build every image twice, in different places on different days, and compare the digests
verify-reproducible: locked build/wheels/$(ARCH)/.made skopeo
	@command -v buildah >/dev/null || scripts/apt-install buildah runc
	@dpkg --status libfaketime >/dev/null 2>&1 || scripts/apt-install libfaketime
	@$(foreach v,$(CHOSEN),scripts/verify-reproducible $v $(ARCH) $(VERSION) '$(SOURCE)' \
	    $(foreach i,$(IMAGES),$i:$(call parent,$i):$(call base_name,$v,$i));)

.PHONY: verify-published
verify-published: ## Build the release that is checked out, and compare it with the one in REGISTRY
verify-published: $(if $(REGISTRY),push/release,push/nowhere)
	@$(MAKE) verify-reproducible
	@code=0; $(foreach v,$(CHOSEN),scripts/push compare $(REGISTRY) $(call release,$v) $(ARCH) $(call built,$v) $(IMAGES) || code=1;) exit $$code

# sbom/write and scan/write build nothing; they use existing images, such as those of test/release.
.PHONY: sbom sbom/write
sbom: ## Write a CycloneDX SBOM of every image to build/sbom; fails if a file belongs to no package
sbom: build-all
sbom sbom/write: .venv/tests
	@$(foreach variant,$(CHOSEN),$(VENV)/python scripts/sbom --tag $(call tag,$(variant)) $(IMAGES);)

.PHONY: scan scan/write
scan: ## Scan the SBOMs for known vulnerabilities; needs grype, or GRYPE=/its/path
scan: sbom
# It reads the output of sbom/write, from this call or an earlier one.
scan/write: $(filter sbom sbom/write,$(MAKECMDGOALS))
scan scan/write: .venv/tests
	@scripts/scan $(foreach variant,$(CHOSEN),$(IMAGES:%=build/sbom/%-$(call tag,$(variant)).json))

.PHONY: matrix
matrix: ## Print the build matrix as JSON
	@echo '[$(subst }$() {,}$(comma) {,$(foreach v,$(CHOSEN),$(foreach i,$(IMAGES),$(call matrix_entry,$v,$i))))]'
comma := ,
matrix_entry = {"image": "$2", "variant": "$1", "parent": $(if $(call parent,$2),"$(call parent,$2)",null), "tag": "optml/$2:$(call tag,$1)", "python": "$(python/$1)", "platforms": [$(subst " ,"$(comma) ,$(patsubst %,"%",$(PLATFORMS)))]}

# Only the locked packages are published, not newer ones to which the archive has moved on.
.PHONY: locked
locked: $(CHOSEN:%=debs/%)
	@differs=$$(cat $(CHOSEN:%=build/debs/%-$(ARCH).differs) 2>/dev/null || true); \
	if [[ $$differs ]]; then \
	    printf 'error: these packages differ from images/*/packages.lock; run make lock:\n%s\n' "$$differs" >&2; exit 1; fi

# Where verify-reproducible leaves the images to publish.
built = build/release/$1-$(ARCH)
# The tags that move to each new release.
moving = $1 $(if $(filter $1,$(firstword $(VARIANTS))),latest $(basename $(VERSION)))

.PHONY: push
push: ## Push every image to REGISTRY=… as release VERSION, whose git tag must be checked out
push: push/machine
	@$(MAKE) push/index

# Fails unless this commit may be published.
.PHONY: push/release
push/release:
	@scripts/push release $(VERSION)

# Pushes the images of one architecture, once two builds have given the same digests.
.PHONY: push/machine
push/machine: $(if $(REGISTRY),locked,push/nowhere)
	@$(MAKE) push/release
	@$(MAKE) verify-reproducible
	@$(foreach v,$(CHOSEN),scripts/push machine $(REGISTRY) $(VERSION) $(call release,$v) $(ARCH) $(call built,$v) $(IMAGES);)

# Joins the architectures under one tag; MACHINES='amd64 arm64' if both were pushed.
MACHINES ?= $(ARCH)
.PHONY: push/index
push/index: $(if $(REGISTRY),engine,push/nowhere)
	@$(MAKE) push/release
	@$(foreach v,$(CHOSEN),scripts/push index $(REGISTRY) $(call release,$v) '$(MACHINES)' '$(call moving,$v)' $(IMAGES);)

# Reads the password from stdin.
.PHONY: push/login
push/login: $(if $(REGISTRY),engine,push/nowhere)
	@docker login $(firstword $(subst /, ,$(REGISTRY))) --username $(USERNAME) --password-stdin

.PHONY: push/nowhere
push/nowhere:
	@echo 'error: set REGISTRY, as in: make push REGISTRY=123456789012.dkr.ecr.eu-west-1.amazonaws.com' >&2; exit 2

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
lock: ## Renew all locks, requirements.lock and packages.lock, with the newest versions and their hashes
lock: .venv/tests
	scripts/debs lock $(VARIANTS)
	for file in images/*/requirements.in tests/requirements.in tests/bench/requirements.in tests/clients/*.in; do \
	    $(VENV)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	        --only-binary :all: --allow-unsafe --excludes tests/clients/excluded.txt --no-emit-index-url \
	        --no-emit-find-links --no-emit-build-options --custom-compile-command "make lock" \
	        "$$file" -o "$${file%.in}.lock"; \
	done

.PHONY: clean
clean: ## Remove the images named optml/*, build/ and .venv/
	@docker images --format '{{.Repository}}:{{.Tag}}' --filter reference='optml/*' | xargs --no-run-if-empty docker rmi
	rm -rf build .venv

.PHONY: help
help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' Makefile
	@printf '\n  make build/NAME, test/NAME, lint/NAME, size/NAME for one image: %s\n' '$(IMAGES)'
	@printf '  make test/FOLDER for one folder of tests: %s\n' '$(SUITES)'
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

# Tools for tests on this machine: a browser, without which the tests of the server's page are skipped, and a compiler
# for the fake GPU driver. After the images, which may install packages as well.
.PHONY: test-tools
test-tools: build-all
	@command -v chromium-headless-shell chromium >/dev/null || scripts/apt-install chromium-headless-shell || \
	    echo 'no browser: the tests of the page will be skipped' >&2
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
