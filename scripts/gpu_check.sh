#!/usr/bin/env bash
# Everything that needs a GPU, in one go, on a machine that has one, PyTorch 2.11.0+cu130 and a pack of scripts/gpu_pack.sh:
# our kernels against fp64, the goldens, a full-size Flux forward against the reference's in bf16, and a full-size job beside the floor.
# usage: scripts/gpu_check.sh PACK BENCH OUT [memcheck]
# BENCH: the folder with make_flux.py and floor_flux.py; OUT: where logs and reports go; memcheck: the GPU tests alone, without and
# with compute-sanitizer
set -uo pipefail
cd "$(dirname "$0")/.."
pack=$1 bench=$2 out=$3
work=${MGPU_WORK:-/tmp/mgpu}
mkdir -p "$work" "$out"
tar -C "$work" -xJf "$pack"
site=$(python3 -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')
LD_LIBRARY_PATH="$work/lib:$site/torch/lib:$(printf '%s:' "$site"/nvidia/*/lib)"
export LD_LIBRARY_PATH
render=$work/build/mgpu-render tests=$work/build/mgpu-gpu-tests
failed=0
step() { printf '\n== %s\n' "$1"; shift; "$@" || { printf 'FAILED (%d): %s\n' $? "$*"; failed=1; }; }

step devices "$render" devices
step "kernels, memory and goldens" "$tests" --no-intro --test-case-exclude='*full-size*'

# compute-sanitizer comes with CUDA's toolkit; where there is none, that is said. Without LibTorch's cache every tensor is an
# allocation of its own, so that a kernel that leaves its tensor is seen. What a test has refused on purpose is no finding. The
# suites run side by side, since the tool computes far below what the GPU could. The suite unet does not end within ten minutes: its
# kernels are those of the engine's UNets.
memcheck() {
  local tool suite code=0
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || {
    printf 'SKIPPED: there is no compute-sanitizer here\n'
    return 0
  }
  local -A job
  for suite in engine flux hand_over image kernels pinned; do
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout "${MGPU_MEMCHECK_SECONDS:-540}" "$tool" --tool memcheck --report-api-errors no \
      --error-exitcode 99 --target-processes application-only --log-file "$out/memcheck_$suite.log" \
      "$tests" --no-intro --test-suite="$suite" --test-case-exclude="$memcheck_leaves_out" >"$out/memcheck_$suite.txt" 2>&1 &
    job[$suite]=$!
  done
  for suite in "${!job[@]}"; do
    wait "${job[$suite]}" || { code=$?; printf '%s: exit %d\n' "$suite" "$code"; }
    printf '%s: %s\n' "$suite" "$(tail -n 1 "$out/memcheck_$suite.log")"
  done
  return $code
}
# Times mean nothing under the tool; a limit of LibTorch's allocator is none without its cache (the suite memory, too).
memcheck_leaves_out="*full-size*,*waits for copies*,*busy for as long*,*copies are queued*,a GPU's limit ends*"
step "memcheck over the GPU tests" memcheck
[[ ${4:-} == memcheck ]] && exit $failed
for family in dev schnell; do
  step "pictures of the $family goldens in fp32" "$render" run "tests/goldens/picture_$family.yaml" --overwrite \
    --set gpu_ids='[0]' --set output.directory="$work/golden_$family"
  for png in "$work/golden_$family"/*.png; do "$render" compare "$png" "tests/goldens/$(basename "$png")"; done
done
[[ -f presets/demo/flux_demo.safetensors ]] && step "the demo" "$render" run presets/demo/demo.yaml --overwrite \
  --set output.directory="$out/demo"

[[ -f $work/flux/ae.safetensors ]] || step "a full-size random set" python3 "$bench/make_flux.py" "$work/flux"
step "the reference's forward" python3 scripts/gpu_accuracy.py "$work/flux/flux1.safetensors" "$work/cases.safetensors"
MGPU_ACCURACY="$work/flux/flux1.safetensors $work/cases.safetensors" step "our forward" "$tests" --no-intro --test-case='*full-size*'
cp scripts/flux_full.yaml "$work/flux/"
step "a full-size job" "$render" run "$work/flux/flux_full.yaml" --overwrite
cp "$work/flux/out/report.json" "$out/report_full.json"
step "the same bytes again" "$render" run "$work/flux/flux_full.yaml" --set output.directory="$work/flux/out2" --only 0
"$render" compare "$work/flux/out/flux_full-0000-0.png" "$work/flux/out2/flux_full-0000-0.png"
cp "$work/flux/out2/report.json" "$out/report_full_warm.json"
step floor python3 "$bench/floor_flux.py" 1024
exit $failed
