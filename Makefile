.PHONY: run test lint bench fuzz

# Builds the gateway and two demo services, and runs them until Ctrl-C.
#
# The dev profile, because the first run is the one that somebody waits for: from nothing it took 158 s of CPU time where
# quick took 401 s, and `make test` reuses what it compiled. Its price is speed: the task service spent 0.48 ms of CPU on
# a request where the quick one spent 0.13 ms. For measuring: PROFILE=release make run.
run:
	@scripts/setup cmake curl
	@exec scripts/demo

# Every test there is.
test:
	@scripts/setup cmake curl haproxy pebble redis-server
	@plugins/build --tools || echo 'without these, tests that build plugins are left out' >&2
	cargo test --features plugins --lib --bins --tests --examples
	cargo test --features plugins --doc

lint:
	@scripts/setup cmake
	cargo fmt --check
	cargo clippy --all-targets --features plugins -- -D warnings

# The microbenchmarks. The reload storm takes minutes: cargo bench --profile quick --bench storm
bench:
	@scripts/setup cmake
	cargo bench --profile quick --bench chain --bench identity --bench load --bench route

# Every fuzz target for a minute; FUZZ_SECONDS=1800 for longer.
fuzz:
	@scripts/setup cmake
	scripts/fuzz $(or $(FUZZ_SECONDS),60)
