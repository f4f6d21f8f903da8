# `just verify` never writes; `just fix` does what can be done by itself.

# Everything that must hold, without the end-to-end tests.
verify:
    .ci/run quick

# Everything, as in CI.
ci:
    .ci/run

# What formats and lints mend by themselves.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --locked --fix --allow-dirty --allow-staged

# One end-to-end program: `just e2e kill_nine --rounds 20`.
e2e name *options:
    cargo build --release --workspace --locked
    python3 node/tests/e2e/{{name}}.py --binary target/release/everpost {{options}}

# The figures of docs/performance.md, on a site of three nodes on this machine.
bench *options:
    cargo build --release --workspace --locked
    python3 node/tests/e2e/bench_smoke.py --binary target/release/everpost --seconds 10 {{options}}
