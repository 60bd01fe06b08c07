#!/usr/bin/env bash
# Installs what the build and the tests need, once: Debian/Ubuntu packages, LibTorch and the CUDA libraries it links
# (PyPI wheels, into .deps/), nvcc where the machine has no CUDA 13 toolkit, and the tokenizers' data.
# The second run finds the stamp and touches neither the network nor the package manager.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
deps=$PWD/.deps
stamp=$deps/stamp
say() { printf 'setup: %s\n' "$*" >&2; }

toolkit=none
if /usr/local/cuda/bin/nvcc --version 2>/dev/null | grep -q 'release 13\.'; then
  toolkit=/usr/local/cuda
fi
# Debian's own Python, whatever else is on PATH: its version decides which wheels fit and where they lie.
python=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null || true)

# The recipe's own hash and what it found are the stamp: editing this file, removing the toolkit or upgrading the distribution
# sets up again.
want="$(sha256sum scripts/setup.sh | cut -d' ' -f1) $toolkit $python"
if [[ -f $stamp && $(<"$stamp") == "$want" ]]; then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  say "no apt-get: this script knows Debian 12 and Ubuntu 24.04 and newer; elsewhere install the packages named in it by hand"
  exit 2
fi
if [[ $(uname -m) != x86_64 ]]; then
  say "this machine is $(uname -m): LibTorch's CUDA 13 wheels that we pin are for x86_64"
  exit 2
fi
step='starting'
trap 'say "failed while $step (the message above says why); what is done stays done: mend it and run this again"' ERR

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "neither root nor sudo: cannot run: $*"
    exit 2
  fi
}
installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
install() {  # installs those of the named packages that are missing
  local missing=() p
  for p in "$@"; do installed "$p" || missing+=("$p"); done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  step='installing packages with apt-get (on Ubuntu they are in main and universe: add-apt-repository universe)'
  if [[ -z ${updated:-} ]]; then
    as_root apt-get update -qq
    updated=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install g++ cmake ninja-build pkg-config git ca-certificates python3 python3-venv python3-jsonschema python3-yaml \
  libcli11-dev libyaml-cpp-dev libfmt-dev doctest-dev liblodepng-dev zlib1g-dev nlohmann-json3-dev libicu-dev libboost-dev \
  ccache clang clang-tidy
# The fuzz tests link clang's runtime, whose package bears clang's version in its name.
install "libclang-rt-$(clang --version | grep -oP 'version \K[0-9]+' | head -1)-dev"

wheels=(torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85 nvidia-cublas==13.1.0.3 nvidia-cufft==12.0.0.61
  nvidia-cufile==1.15.1.6 nvidia-curand==10.4.0.35 nvidia-cusparse==12.6.3.3 nvidia-nvjitlink==13.0.88
  nvidia-cudnn-cu13==9.19.0.56 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9 nvidia-nvshmem-cu13==3.4.5
  nvidia-cusolver==12.0.4.66 nvidia-cuda-nvrtc==13.0.88
  clang-format==14.0.6)  # not the distribution's: each version lays out the same text differently
if [[ $toolkit == none ]]; then
  say "no CUDA 13 toolkit in /usr/local/cuda: taking nvcc from PyPI"
  wheels+=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85)
fi

say "LibTorch 2.11.0 and the CUDA libraries it links (2.5 GB to load, 7 GB of disk with pip's cache)"
step='installing wheels from PyPI with pip'
python=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
want="${want% *} $python"  # Python may be one of the packages just installed
[[ -x $deps/venv/bin/python && -d $deps/venv/lib/$python ]] || /usr/bin/python3 -m venv --clear "$deps/venv"
pip() { "$deps/venv/bin/python" -m pip "$@"; }  # not bin/pip, which names the folder that it was made in
pip install -q --no-deps --no-compile --disable-pip-version-check "${wheels[@]}"

# Tokenizer data: the published files of CLIP and T5 v1.1, from a wheel that carries them, checked by hash.
data=$deps/tokenizers
mkdir -p "$data"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
say "tokenizer data"
step='loading the tokenizer data from PyPI with pip'
pip download -q --no-deps --disable-pip-version-check -d "$tmp" diffsynth==1.1.7
"$deps/venv/bin/python" - "$tmp" "$data" <<'PY'
import glob, hashlib, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/diffsynth-*.whl")[0])
files = {  # where it lies in the wheel: (our name, sha256)
    "flux/tokenizer_1/merges.txt": ("clip_merges.txt", "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"),
    "flux/tokenizer_2/spiece.model": ("t5xxl_spiece.model", "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"),
}
for path, (name, want) in files.items():
    data = wheel.read("diffsynth/tokenizer_configs/" + path)
    got = hashlib.sha256(data).hexdigest()
    if got != want:
        sys.exit(f"setup: {path} in the wheel has sha256 {got}, not {want}")
    with open(f"{sys.argv[2]}/{name}", "wb") as f:
        f.write(data)
PY
printf '%s\n' "$want" >"$stamp"
say "done"
