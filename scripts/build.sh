#!/usr/bin/env bash
# Sets up and builds into build/. Called by demo.sh and test.sh; safe to run alone and again.
#   scripts/build.sh            the program, the tests and the benchmarks, with kernels for every supported GPU
#   scripts/build.sh --program  the program alone, with kernels for this machine's GPUs
set -euo pipefail
cd "$(dirname "$0")/.."
configure=(-UCMAKE_CUDA_ARCHITECTURES)  # all of them (scripts/cmake/toolchain.cmake), whatever an earlier build took
targets=()
case ${1:-} in
  '') ;;
  --program)
    own=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u | sed 's/$/-real/' | paste -sd';') || own=
    configure=("-DCMAKE_CUDA_ARCHITECTURES=${own:-75-virtual}")  # no GPU here: code that every GPU's driver can compile
    targets=(--target mgpu-render)
    ;;
  *)
    printf 'build: unknown argument %s\n' "$1" >&2
    exit 2
    ;;
esac
scripts/setup.sh
# Quiet unless something is wrong: a newcomer wants the picture, not the compiler's progress.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf 'build: configuring and compiling into build/ (the first time some minutes; progress: tail -f %s)\n' "$log" >&2
# After a set-up, from scratch (ccache keeps it short): CMake remembers which compiler and Python folder it once found.
if [[ .deps/stamp -nt build/CMakeCache.txt ]]; then
  configure+=(--fresh)
fi
if ! { cmake --preset release "${configure[@]}" && cmake --build --preset release "${targets[@]}"; } >"$log" 2>&1; then
  cat "$log" >&2
  printf 'build: failed\n' >&2
  exit 1
fi
