#!/usr/bin/env bash
# Sets up, builds, checks the formatting and runs every test through ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh
exec ctest --test-dir build --output-on-failure --parallel 2 "$@"
