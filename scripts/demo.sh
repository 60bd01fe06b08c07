#!/usr/bin/env bash
# From a clean checkout to a picture, on any machine: sets up, builds, renders the demo job into build/demo and prints where
# the pictures and the report lie.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh --program
rm -f build/demo/*.png  # of an earlier demo job: what is listed below is what this run made
build/mgpu-render run presets/demo/demo.yaml --overwrite --set output.directory=build/demo
printf '%s\n' "$PWD"/build/demo/*.png "$PWD"/build/demo/report.json
