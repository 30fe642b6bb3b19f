#!/bin/sh
# Shows that the simulator finds what it is for: builds it with one planted bug after the other
# (`cfg!(plant = "...")` in scheduler/src) and runs 1,000 seeds of each; every one must be found.
# Only the workspace's own crates are rebuilt, in target/planted.
#   tests/planted.sh [PLANT...]
set -eu
cd "$(dirname "$0")/.."
all=$(grep -rhoE 'plant = "[a-z_]+"' scheduler/src | cut -d'"' -f2 | sort -u)
out=$PWD/target/planted
mkdir -p "$out"
missed=0
for plant in ${*:-$all}; do
    printf '#!/bin/sh\nexec "$@" --cfg '"'"'plant="%s"'"'"'\n' "$plant" > "$out/rustc-$plant"
    chmod +x "$out/rustc-$plant"
    RUSTC_WORKSPACE_WRAPPER="$out/rustc-$plant" cargo build --quiet --release \
        -p allhands-tests --bin sim --target-dir "$out"
    # What counts is the report of a broken rule: a simulator that cannot run exits non-zero as well.
    report=$("$out/release/sim" --seeds 0..1000 2>&1) || true
    if found=$(echo "$report" | grep -m 1 BROKEN); then
        echo "$plant: $found"
    else
        echo "$plant: NOT FOUND in 1000 seeds; the simulator's last words:"
        echo "$report" | tail -n 3
        missed=1
    fi
done
exit $missed
