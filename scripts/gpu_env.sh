# Sourced on a GPU machine: lets binaries packed by gpu_pack.sh find LibTorch in the machine's own PyTorch.
# usage: . scripts/gpu_env.sh DIR
_site=$(python3 -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')
LD_LIBRARY_PATH="$PWD/$1/lib:$_site/torch/lib:$(printf '%s:' "$_site"/nvidia/*/lib)${LD_LIBRARY_PATH:-}"
export LD_LIBRARY_PATH
