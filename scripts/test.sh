#!/usr/bin/env bash
# Sets up, builds and runs every test (formatting and clang-tidy among them) through ctest; arguments go to ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh
exec ctest --test-dir build --output-on-failure --parallel 2 "$@"
