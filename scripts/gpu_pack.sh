#!/usr/bin/env bash
# Packs what a GPU machine needs to run our build without building: the binaries, the few Debian libraries that they link and the
# goldens, into DIR (default .gpu/). There, PyTorch 2.11.0+cu130 supplies LibTorch: see scripts/gpu_env.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-.gpu}
rm -rf "$dir"
mkdir -p "$dir/lib"
cp build/mgpu-render build/mgpu-gpu-tests "$dir/"
strip "$dir"/mgpu-*
ldd build/mgpu-render | awk '/yaml-cpp|lodepng|sentencepiece|protobuf/ {print $3}' | xargs -I{} cp -L {} "$dir/lib/"
cp -r .deps/tokenizers "$dir/"
du -sh "$dir" >&2
