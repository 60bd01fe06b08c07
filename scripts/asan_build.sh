#!/usr/bin/env bash
# Builds the sanitized suites, the fuzz targets and the program into build-asan/, under AddressSanitizer and
# UndefinedBehaviorSanitizer. Called by ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=()
if [[ .deps/stamp -nt build-asan/CMakeCache.txt ]]; then
  fresh=(--fresh)
fi
cmake --preset asan "${fresh[@]}"
cmake --build --preset asan --target mgpu-tests mgpu-render fuzz
