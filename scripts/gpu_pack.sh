#!/usr/bin/env bash
# Packs what a GPU machine needs to run our build without building: the binaries, the few Debian libraries that they link and the
# tokenizers' data, as DIR/pack.tar.xz (default .gpu/). There, PyTorch 2.11.0+cu130 supplies LibTorch.
# scripts/gpu_check.sh unpacks and uses it.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-.gpu}
mkdir -p "$dir"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/build" "$tmp/lib"
strip -o "$tmp/build/mgpu-render" build/mgpu-render
strip -o "$tmp/build/mgpu-gpu-tests" build/mgpu-gpu-tests
strip -o "$tmp/build/mgpu-vae-bench" build/mgpu-vae-bench
strip -o "$tmp/build/mgpu-unet-bench" build/mgpu-unet-bench
ldd build/mgpu-render | awk '/yaml-cpp|lodepng|libicu/ {print $3}' | xargs -I{} cp -L {} "$tmp/lib/"
mkdir -p "$tmp/.deps"
cp -r .deps/tokenizers "$tmp/.deps/"
tar -C "$tmp" -cf - . | xz -6 >"$dir/pack.tar.xz"
ls -l "$dir/pack.tar.xz" >&2
