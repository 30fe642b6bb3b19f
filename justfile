# `just verify` never writes; `just fix` rewrites.

verify:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo check -p allhands-scheduler --target thumbv7em-none-eabihf
    cargo test --workspace
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
    cargo deny check

fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty
    cargo fmt --all

# A thousand seeds of the simulator; `just sim 0..100000` for a night.
sim seeds="0..1000":
    cargo run --release -p allhands-tests --bin sim -- --seeds {{seeds}}

bench workload *args:
    cargo run --release -p allhands-bench -- {{workload}} {{args}}
