#!/usr/bin/env bash
# The main job, end to end, on real input (make demo): prebuilds the example's
# VM tests with real Nix, runs them in real guests, measures what each would
# have cost from nothing, and imports their closure into a store that Nix then
# verifies. Run it from the top of the tree, after setup.sh and make build.
set -euo pipefail
# shellcheck source=nix/offline/env.sh
. nix/offline/env.sh

override=(--override-input nixpkgs path:./nix/offline --no-write-lock-file)
state=.cache/demo
mkdir -p "$state"
# Stores are read-only trees. Those of earlier runs go now, and those of this
# run stay: ext4 is slow at creating files right after it has deleted many.
for old in "$state"/*; do
    [ -d "$old" ] && [ ! -L "$old" ] && chmod -R u+w "$old"
    rm -rf "$old"
done

step() { printf '\n== %s\n' "$*" >&2; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

# quietly LOG CMD…: the command's output is shown only if it fails.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        echo "demo: failed: $*; all of its output is in $log" >&2
        exit 1
    }
}

step "prebuilding the example's VM tests: nix build .#run-vm-tests-with-cache"
begin=$(now)
quietly "$state/build.log" nix build .#run-vm-tests-with-cache "${override[@]}" -o "$state/result"
echo "that took $(since "$begin") s (what the store had already took nothing)" >&2

step "running them prebuilt: result/bin/run-vm-tests"
"$state/result/bin/run-vm-tests" --jobs 1 -o "$state/results" --json >"$state/prebuilt.json"

step "from nothing: vm-prebuild's own tools, into an empty store"
tools=$PWD/$state/nothing/tools
begin=$(now)
quietly "$state/tools.log" nix build --store "$tools" .#vm-prebuild "${override[@]}" -o "$state/tools"
tools_seconds=$(since "$begin")
echo "$tools_seconds s" >&2

step "from nothing: each test into an empty store that has those tools; evaluate, build, run in the Nix sandbox"
: >"$state/nothing.tsv"
for test in $(bin/vm-prebuild list "$state/result" --json | jq -r '.tests | keys[]'); do
    store=$PWD/$state/nothing/$test
    quietly "$state/$test.log" nix copy --no-check-sigs --from "$tools" --to "$store" "$(readlink "$state/tools")"
    begin=$(now)
    quietly "$state/$test.log" nix build --store "$store" ".#checks.x86_64-linux.$test" "${override[@]}" --no-link -L
    printf '%s\t%s\n' "$test" "$(since "$begin")" | tee -a "$state/nothing.tsv" >&2
done

step "importing the closure into a fresh store, with Nix as the judge"
bin/vm-prebuild import --store "$state/store" "$state/result"
bin/vm-prebuild import --store "$state/store" "$state/result"
nix-store --verify --check-contents --store "$PWD/$state/store"
echo "nix-store --verify --check-contents: no errors" >&2

step "what was saved"
jq -r '.tests[] | [.name, .durationSeconds] | @tsv' "$state/prebuilt.json" | sort |
    join -t $'\t' <(sort "$state/nothing.tsv") - |
    awk -F '\t' -v tools="$tools_seconds" '
        BEGIN { printf "%-22s %14s %14s %10s\n", "TEST", "FROM NOTHING", "TOOLS CACHED", "PREBUILT" }
        { printf "%-22s %12.1f s %12.1f s %8.1f s\n", $1, tools + $2, $2, $3; a += $2; b += $3; n++ }
        END { printf "%-22s %12.1f s %12.1f s %8.1f s\n", "all " n " in a row", tools + a, a, b }'
cat <<'END'
FROM NOTHING   an empty store: builds vm-prebuild's tools, then as
TOOLS CACHED   evaluates, builds guests and driver, and runs in the Nix sandbox
PREBUILT       result/bin/run-vm-tests: boots and runs the script
END

step "warm machines: nix build .#run-vm-tests-warm boots each machine once"
begin=$(now)
quietly "$state/warm.log" nix build .#run-vm-tests-warm "${override[@]}" -o "$state/warm"
echo "that took $(since "$begin") s (what the store had already took nothing)" >&2
for mode in off require; do
    "$state/warm/bin/run-vm-tests" --jobs 1 -o "$state/results-$mode" --warm "$mode" --warm-dir "$state/states" --json >"$state/$mode.json"
done
jq -r '.tests[] | [.name, .durationSeconds] | @tsv' "$state/off.json" | sort |
    join -t $'\t' - <(jq -r '.tests[] | [.name, .durationSeconds] | @tsv' "$state/require.json" | sort) |
    awk -F '\t' '
        BEGIN { printf "%-22s %14s %14s %10s\n", "TEST", "COLD", "WARM", "FASTER" }
        { printf "%-22s %12.1f s %12.1f s %8.1f x\n", $1, $2, $3, $2 / $3; a += $2; b += $3; n++ }
        END { printf "%-22s %12.1f s %12.1f s %8.1f x\n", "all " n " in a row", a, b, a / b }'
cat <<'END'
COLD           boots the machines and runs the script
WARM           restores the machines at multi-user.target (the first time, unpacks their
               states) and runs the script
END

step "the impossible: a test on a Nix that has neither KVM nor the features of tests"
impossible=$PWD/$state/impossible
bin/vm-prebuild import --store "$impossible" "$state/result"
poor=(nix build .#checks.x86_64-linux.vm-help --store "$impossible" --no-link -L "${override[@]}"
    --option system-features 'benchmark big-parallel')
if "${poor[@]}" >"$state/refused.log" 2>&1; then
    echo "demo: Nix has built it without the hook" >&2
    exit 1
fi
grep -m 1 'is required to build' "$state/refused.log" >&2 || {
    tail -n 40 "$state/refused.log" >&2
    exit 1
}
begin=$(now)
VM_PREBUILD_HOOK_STORE=$PWD/$state/hook VM_PREBUILD_HOOK_TCG=allow \
    quietly "$state/hook.log" "${poor[@]}" --option build-hook "$PWD/bin/nix-vm-build-hook"
grep -m 1 'KVM CANNOT BE USED' "$state/hook.log" >&2 || echo "with KVM, which the hook has found" >&2
echo "with --option build-hook nix-vm-build-hook: built in $(since "$begin") s" >&2
