#!/usr/bin/env bash
# Sets up and builds into build/. Called by demo.sh and test.sh; safe to run alone and again.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
# Quiet unless something is wrong: a newcomer wants the picture, not the compiler's progress.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf 'build: configuring and compiling into build/ (the first time 5 to 15 minutes on two cores)\n' >&2
# After a set-up, from scratch (ccache keeps it short): CMake remembers which compiler and Python folder it once found.
fresh=()
if [[ .deps/stamp -nt build/CMakeCache.txt ]]; then
  fresh=(--fresh)
fi
if ! { cmake --preset release "${fresh[@]}" && cmake --build --preset release; } >"$log" 2>&1; then
  cat "$log" >&2
  printf 'build: failed\n' >&2
  exit 1
fi
