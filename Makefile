# `make` alone lists the targets.
.PHONY: help run build check e2e test test-console cluster cluster-down

target := $(shell uname -m)-unknown-linux-gnu

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1: /p' Makefile

run: cargo ## build, start local mode on testdata/radixconfig.yaml, run an example job, and stay up
	@scripts/try

build: cargo ## the static binary, target/job-scheduler
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(target)
	cp target/$(target)/release/job-scheduler target/job-scheduler

check: cargo ## all that needs no cluster: formatting, lints, unit tests, golden files
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test e2e --test faults -- -D warnings # which --all-targets leaves out, as `test = false` says
	cargo test --locked
	cargo clippy --locked --features shuttle --profile test --lib -- -D warnings
	$(MAKE) --no-print-directory interleavings
	cargo clippy --locked --test simulate -- -D warnings
	$(MAKE) --no-print-directory simulate SECONDS=20 QUICK=1

e2e: build ## the end-to-end test, on the project's own cluster or on the one of KUBECONFIG (see scripts/e2e)
	scripts/e2e

faults := cargo test --locked --test faults -- --test-threads=3 --show-output

test: check build ## check, e2e and test-faults-quick, on one cluster; needs Rust, and for the cluster root, Go and apt-get
	cargo test --locked --test e2e --test faults --no-run # fails sooner without a cluster
	scripts/with-cluster sh -c 'scripts/e2e && $(faults)'

test-console: cargo ## the console in a headless browser; needs Node and npm (see scripts/test-console)
	scripts/test-console

cluster: ## start one real Kubernetes node on this machine (see scripts/cluster)
	scripts/cluster up

cluster-down: ## stop it and remove all of it
	scripts/cluster down

.PHONY: cargo
cargo:
	@command -v cargo >/dev/null || { echo "make: Rust is not installed: see https://rustup.rs" >&2; exit 1; }

TEST ?= interleavings

.PHONY: interleavings
interleavings: cargo ## what depends on how threads are interleaved, under thousands of schedules; TEST=name SCHEDULE=… runs one again
	cargo test --locked --features shuttle --lib $(TEST)

.PHONY: test-contract
test-contract: ## look for answers that the OpenAPI document does not have; needs Rust, Python and PyPI (see scripts/test-contract)
	scripts/test-contract

.PHONY: test-clients
test-clients: ## make, build and run clients of the API in Java, Python, Go and TypeScript (see scripts/test-clients)
	scripts/test-clients

.PHONY: test-faults-quick test-faults bench fuzz
test-faults-quick: cargo ## the fault tests that take under two minutes together
	scripts/with-cluster $(faults)

test-faults: cargo ## all fault tests; the last ones stop the API server of the project's own cluster for a while
	scripts/with-cluster sh -c '$(faults) --include-ignored --skip real::$(if $(KUBECONFIG),, && $(faults) --include-ignored real::)'

SECONDS ?= 60

.PHONY: simulate
simulate: cargo ## every use case with each fault at each write, then random histories for SECONDS (60); SEED=n shows one; QUICK=1 builds it sooner
	SECONDS=$(SECONDS) SEED=$(SEED) CELL=$(if $(CELL),"$(CELL)") cargo test --locked --profile simulate$(if $(QUICK),-quick) --test simulate

MUTANTS ?= --jobs 2
mutants := cargo mutants --output target $(MUTANTS) --baseline skip --timeout 120 --iterate

.PHONY: mutants
mutants: cargo ## changes to the core that its tests let pass; MUTANTS="--shard 0/8" is a part; installs cargo-mutants
	@cargo mutants --version >/dev/null 2>&1 || cargo install cargo-mutants --locked
	rm -rf target/mutants.out*
	@# First what the simulation lets pass; 2 says that there is some. Then what of that the other tests let pass, too.
	SHORT=1 SECONDS=8 $(mutants) --cargo-arg=--test=simulate || [ $$? = 2 ]
	cp target/mutants.out/missed.txt target/mutants-simulated.txt
	$(mutants) $(addprefix --cargo-arg=,--lib --test=batches --test=events --test=progress --test=local)

bench: build ## the benchmark, on the cluster; writes target/bench.md
	JOB_SCHEDULER=$(CURDIR)/target/job-scheduler scripts/with-cluster cargo bench --locked --bench scheduler

FUZZ_SECONDS ?= 60
fuzz_targets := request_body batch_body radixconfig watch_frames http_path http_server

fuzz: cargo ## each fuzz target for FUZZ_SECONDS (60); installs cargo-fuzz if it is missing
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
	@# No sanitizer: it would need a nightly compiler, and the code is safe Rust.
	set -e; for target in $(fuzz_targets); do \
		mkdir -p fuzz/corpus/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target testdata/fuzz/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -dict=testdata/fuzz/$$target.dict -timeout=10 -print_final_stats=1 -verbosity=0; \
	done

