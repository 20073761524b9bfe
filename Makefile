# `make help` lists the targets. Results that take long (kernel, tools, sample images) are cached by content.

PITH_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pith
export PITH_CACHE
export PATH := $(PITH_CACHE)/bin:$(PATH)

CARGO ?= cargo
# The processor of the guest: aarch64 or x86_64. Without one, that of this machine.
ARCH ?=
export ARCH
GUEST := $(or $(ARCH),$(shell uname -m))
BUILDER := target/debug/image-builder
SAMPLES := tests/samples/pod.yaml
SECONDS := 60

OF_ARCH := $(if $(ARCH),--arch $(ARCH))

# Every build is of the whole workspace, though of one binary or with one feature more: then all of them want the same
# features of every crate, and a crate is compiled once. With `-p` in its place, each of them would compile its own.
WORKSPACE := --locked --workspace

.PHONY: help setup setup-build setup-images setup-run setup-test build flavours images samples run test lint audit unit unit-aarch64 fuzz programs wheel site guest-tests test-aarch64 nested devices conformance oracle abuse soak sandbox bench bench-pack pods check-kernel dist dist-check release clean FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install everything that is missing: Debian packages, vhost-device-vsock, cargo-nextest, cargo-deny
	@.ci/setup

setup-build: # What `make build` needs
	@.ci/setup build

setup-images: # What the other flavours, disks and kernels need
	@.ci/setup build images

setup-run: ## Install what running pods needs, and no more: QEMU, and daemons for vsock and shared folders
	@.ci/setup run

setup-test: # What tests need, and sample images
	@.ci/setup build images run test

$(BUILDER): FORCE
	@$(CARGO) build $(WORKSPACE) --bin image-builder --bin pith

build: setup-build $(BUILDER) ## Build kernel, agent and initrd into out/; ARCH=aarch64 for a guest of 64-bit Arm
	@$(BUILDER) build $(OF_ARCH)

programs: setup-build $(BUILDER) ## Build the OCI runner and the tests' probe, static, into out/
	@$(BUILDER) program $(OF_ARCH) jail probe

wheel: setup-test ## Build the Python package into out/
	@.ci/wheel

site: ## Make the documents a website in out/site, by mdBook
	@.ci/site

flavours: setup-images build ## Pack the initrd of every flavour
	@$(BUILDER) initrd $(OF_ARCH) --all

images: flavours ## Build everything that a VM can boot: the default kernels, every flavour as initrd and as disks; a guest for Arm
	@$(BUILDER) disk $(OF_ARCH) --all
ifeq ($(GUEST),x86_64)
	@$(BUILDER) kernel build --profile sandbox
	@$(BUILDER) uki --all
	@$(BUILDER) build --arch aarch64
endif
	@$(BUILDER) sbom

samples: setup-test $(BUILDER) ## Build the sample container images (nginx, curl, busybox) into out/images; ARCH=aarch64 into out/images-aarch64
	@tests/samples/build-images.sh $(OF_ARCH)

run: setup-run build samples ## Build everything and run the sample pod: nginx and curl in one VM; ARCH=aarch64 emulates 64-bit Arm
	@tests/samples/demo.sh

test: lint unit fuzz guest-tests ## Run the tests, the last ones in guests; leaves out nested, audit, and most of oracle and soak

test: SECONDS = 6

lint: setup-test ## Check formatting, clippy, the documentation of the code, and the licences and sources of dependencies
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml --check
	$(CARGO) clippy $(WORKSPACE) --all-targets -- -D warnings
	$(CARGO) clippy $(WORKSPACE) --all-targets --features agent/policy,agent/sandbox-api -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(WORKSPACE) --no-deps --quiet
	cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	$(CARGO) publish --dry-run --no-verify --locked --quiet --package pith-protocols --allow-dirty
	@.ci/wheel --check

audit: setup-test ## Compare the dependencies with RustSec's list of vulnerable and abandoned crates, which is downloaded
	cargo-deny --locked check --hide-inclusion-graph advisories

unit: setup-test ## Run the tests that need only cargo
	$(CARGO) nextest run $(WORKSPACE)
	$(CARGO) test $(WORKSPACE) --doc
	$(CARGO) nextest run $(WORKSPACE) --features agent/policy -E 'package(agent) and test(policy)'
	$(CARGO) nextest run $(WORKSPACE) --features agent/sandbox-api -E 'package(agent) and test(sandbox_api)'

# The crates of the guest, and those that write its file systems and images. For this target nothing is compiled but these
# tests, so naming the crates compiles nothing twice.
ARM_CRATES := agent init mountinfo parcel pith-protocols rustjail sandbox-api fs-image
unit-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER = aarch64-linux-gnu-gcc
unit-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER = qemu-aarch64-static -L /usr/aarch64-linux-gnu
unit-aarch64: setup-test ## Run the unit tests of what is in a guest for 64-bit Arm, under user emulation
	$(CARGO) nextest run --locked --target aarch64-unknown-linux-gnu $(ARM_CRATES:%=--package %)

fuzz: setup-test ## Feed arbitrary input to the code that judges input; TARGET=plan selects one of tests/fuzz/targets, SECONDS=60 each
	@tests/fuzz/run.sh $(SECONDS) $(TARGET)

guest-tests: images programs samples wheel ## Run the tests that boot guests under QEMU
	@tests/samples/build-images.sh --arch aarch64
	@rm -rf out/devices
	@rm -f target/nextest/guest/junit.xml
	$(CARGO) nextest run $(WORKSPACE) -P guest; status=$$?; tests/minutes.py target/nextest/guest/junit.xml; exit $$status
	@tests/devices/table.sh

test-aarch64: ## Run the tests in emulated guests for 64-bit Arm: conformance, jail, sandbox API, parts of e2e and devices
	@$(MAKE) images programs samples wheel
	@$(MAKE) flavours programs samples ARCH=aarch64
	PITH_TEST_ARCH=aarch64 $(CARGO) nextest run $(WORKSPACE) -P aarch64

nested: images programs samples wheel ## Make a host with KVM under emulation, and run our tests in it; ARGS='part of a name' selects some
	@CARGO='$(CARGO)' tests/nested/run.sh $(ARGS)

devices: build programs samples ## Test every storage driver and kind of device with real devices, and print a table
	@rm -rf out/devices
	$(CARGO) nextest run $(WORKSPACE) -P devices
	@tests/devices/table.sh

conformance: flavours samples ## Test every method of the API in guests, and print a table; ARGS='--json FILE' or parts of names
	$(CARGO) test $(WORKSPACE) --test conformance -- $(ARGS)

oracle: flavours programs ## Run the same OCI bundles, and all specs of engines, through jail, crun and runc in one guest; ORACLE=parts of names, with commas
	ORACLE_ENGINES=1 $(CARGO) nextest run $(WORKSPACE) -P oracle

pods: ## Print which manifests of a directory are accepted, and why others are not: make pods PODS=DIR
	@PODS='$(abspath $(PODS))' $(CARGO) test $(WORKSPACE) --quiet --lib -- --ignored --nocapture what_becomes_of_the_manifests

soak: build samples ## Create and remove 10,000 containers in a row, with a table at each thousand; SOAK=0.1 runs a tenth of them
	SOAK=$${SOAK:-1} $(CARGO) nextest run $(WORKSPACE) -P soak

abuse: images programs samples ## Test hostile containers and clients, and print what they leave behind
	$(CARGO) nextest run $(WORKSPACE) -P abuse

sandbox: images programs samples ## Test the sandbox API with unmodified E2B SDKs
	$(CARGO) nextest run $(WORKSPACE) -P sandbox

bench: images programs samples ## Measure sizes, boots, calls and lives; AGAINST=DIR compares with the out/ of another tree, else with Debian's kernel
	@tests/samples/demo.sh --bench
	@$(CARGO) build --quiet $(WORKSPACE) --bin bench-boot --bin bench-guest --bin bench-memory --bin bench-work --bin bench-sandbox
	@target/debug/bench-work $(if $(AGAINST),--against '$(AGAINST)')
	@$(if $(AGAINST),,target/debug/bench-sandbox)
	@target/debug/bench-boot $(if $(AGAINST),--against '$(AGAINST)')
	@target/debug/bench-guest $(if $(AGAINST),--against '$(AGAINST)')
	@target/debug/bench-memory $(if $(AGAINST),--against '$(AGAINST)')

bench-pack: setup-images ## Measure how long packing takes, against mkfs.erofs; ARGS='--rounds 5 DIR' or '--mkfs PROGRAM'
	@$(CARGO) build --release --quiet $(WORKSPACE) --bin bench-pack
	@target/release/bench-pack $(ARGS)
	@target/release/bench-pack --large

check-kernel: $(BUILDER) ## Merge the fragments of every kernel profile and verify them, without compiling
	@$(BUILDER) kernel check --all

dist: setup-images $(BUILDER) ## Build a release into out/dist: tarball, Debian package, list of ingredients, checksums
	@.ci/dist . out/dist '$(BUILDER)'

dist-check: dist ## Build the release a second time from a clone in another directory, and compare byte for byte
	@.ci/dist-check '$(BUILDER)'

release: ## Check changelog, versions and tag, build the release, and sign it: make release VERSION=1.2.3 KEY=FILE
	@.ci/release '$(VERSION)' '$(KEY)'

clean: ## Remove everything that was built here; the cache stays
	rm -rf target out

FORCE:
