# Etna: what people and CI run. `make` alone says what there is.

SHELL := /bin/bash -eu -o pipefail
.DEFAULT_GOAL := help
.PHONY: help demo test drills check check-code check-deps build profile bench bench-quick bench-micro guard guard-record fuzz \
  fuzz-smoke install-deps clean

CARGO ?= cargo
SECONDS ?= 600
PROGRAMS := --package etna-proxy --package etna-sidekick --package etna-ctl
SCRIPTS := scripts/*.sh tests/testbed/*.sh tests/testbed/images/*/start units/*.sh .ci/run

help: ## Say what there is (this)
	@echo "Etna, a programmable HTTP load balancer. Targets:"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Each installs what it lacks with apt (scripts/apt-packages.txt), and says so. Rust has to be there."

demo: ## Try it: a proxy, two public containers and an admin container, until Ctrl-C
	@scripts/install-deps.sh build
	@echo "Building Etna (a few minutes the first time)"
	@$(CARGO) build $(PROGRAMS)
	@target/debug/etna demo

test: ## Run all tests, on real etcd, Docker and WordPress
	@scripts/install-deps.sh build test
	@$(CARGO) build $(PROGRAMS)
	@scripts/test.sh

drills: ## Kill, freeze, change and attack everything under load; nothing may be lost (an hour)
	@scripts/install-deps.sh build test
	@$(CARGO) build --release $(PROGRAMS)
	@$(CARGO) run --release --quiet --package etna-tests --bin drills -- --record

check: check-code check-deps ## Check format, lints, docs, scripts, units and dependencies

check-code: ## The part of check that needs no tool beside Rust's own
	@scripts/install-deps.sh build check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --quiet
	shellcheck $(SCRIPTS)
	units/check.sh
	@! $(CARGO) tree --workspace --edges no-dev --invert ring 2>/dev/null | grep . || \
	  { echo "error: ring is linked in; one crypto provider, aws-lc-rs"; exit 1; }

check-deps: ## The part of check that looks at dependencies (cargo-deny)
	@scripts/deny.sh

build: ## Build the three programs for use, into target/release
	@scripts/install-deps.sh build
	@scripts/build.sh $(PROGRAMS)

profile: ## Measure anew what tells the optimizer how a proxy is used, for the rustc at hand (twenty minutes)
	@scripts/install-deps.sh build bench profile
	@scripts/profile.sh $(PROGRAMS)

bench: ## Measure Etna beside HAProxy, nginx and Caddy, and against its targets (an hour and a quarter)
	@scripts/install-deps.sh build bench
	@scripts/build.sh $(PROGRAMS)
	@$(CARGO) run --release --quiet --package etna-benches --bin side-by-side

bench-quick: ## The most telling of it in one short round (three minutes)
	@scripts/install-deps.sh build bench
	@scripts/build.sh $(PROGRAMS)
	@$(CARGO) run --release --quiet --package etna-benches --bin side-by-side -- --quick

bench-micro: ## Measure the pure parts: matching, compiling, choosing, counting
	@scripts/install-deps.sh build
	@$(CARGO) bench --package etna-benches --bench micro

guard: ## Count what a request costs: instructions, allocations, system calls; fail where that has grown
	@scripts/install-deps.sh build guard
	@$(CARGO) build --release --package etna-proxy
	@$(CARGO) run --quiet --package etna-benches --bin guard

guard-record: ## Write down what a request costs now
	@scripts/install-deps.sh build guard
	@$(CARGO) build --release --package etna-proxy
	@$(CARGO) run --quiet --package etna-benches --bin guard -- --record

fuzz: ## Look for inputs that break parsers, SECONDS (600) each of TARGETS (all)
	@scripts/install-deps.sh build
	@scripts/fuzz.sh $(SECONDS) $(TARGETS)

fuzz-smoke: ## The same for 20 seconds each
	@scripts/install-deps.sh build
	@scripts/fuzz.sh 20 $(TARGETS)

install-deps: ## Install everything that any target needs
	@scripts/install-deps.sh build test check bench guard profile

clean: ## Remove what was built, and the testbed's engine and images
	$(CARGO) clean
	$(CARGO) clean --manifest-path fuzz/Cargo.toml
	@tests/testbed/clean.sh
