#!/usr/bin/env bash
# Formats every C++ and CUDA file; with --check only says which are not.
set -euo pipefail
cd "$(dirname "$0")/.."
# clang-format lays out the same text differently from version to version: the one that set-up pins, else this machine's if it is
# of the same line.
format=$(compgen -G '.deps/venv/lib/python3*/site-packages/clang_format/data/bin/clang-format' || command -v clang-format || true)
if [[ $("${format:-false}" --version) != *'version 14.'* ]]; then
  printf 'format: clang-format 14 is missing: run scripts/setup.sh\n' >&2
  exit 2
fi
# By folder, not by git: a downloaded archive has no .git, and git refuses another user's clone (sudo).
mapfile -t files < <(find cli core samplers shard tests vae -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
if [[ ${1:-} == --check ]]; then
  exec "$format" --dry-run --Werror "${files[@]}"
fi
exec "$format" -i "${files[@]}"
