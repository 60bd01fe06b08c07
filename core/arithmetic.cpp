#include "core/arithmetic.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fcntl.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "core/error.h"
#include "core/host_limits.h"
#include "core/host_memory.h"

namespace mgpu {
namespace {

// oneDNN may choose a kernel by the number of threads: under `exact: portable` it is the same everywhere.
constexpr int kPortableThreads = 8;

/// LibTorch's own default is a thread per physical core of the machine, whatever the cgroup allows.
void set_thread_count() {
  for (const char* variable : {"OMP_NUM_THREADS", "MKL_NUM_THREADS"})
    if (std::getenv(variable)) return;
  at::set_num_threads(host_threads());
}

}  // namespace

void set_exact_arithmetic() {
  setenv("MKL_CBWR", "AUTO,STRICT", /*overwrite=*/0);
  set_thread_count();
  at::Context& context = at::globalContext();
  context.setAllowTF32CuBLAS(false);
  context.setAllowTF32CuDNN(false);
  context.setAllowFP16ReductionCuBLAS(false);
  context.setAllowBF16ReductionCuBLAS(false);
  context.setBenchmarkCuDNN(false);
  context.setDeterministicCuDNN(true);
}

void set_portable_arithmetic() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
    throw Error(Exit::Usage, Mark{}, "\"exact: portable\" needs a CPU with AVX2 and FMA, and this one lacks them",
                "leave it out, or render on another machine");
  setenv("ATEN_CPU_CAPABILITY", "avx2", /*overwrite=*/1);
  setenv("ONEDNN_MAX_CPU_ISA", "AVX2", /*overwrite=*/1);
  setenv("MKL_CBWR", "AVX2,STRICT", /*overwrite=*/1);
  if (const std::string chosen = at::get_cpu_capability(); chosen != "AVX2")  // read once, by now or here
    throw Error(Exit::Usage, Mark{}, fmt::format("LibTorch computes with {} already, not with AVX2", chosen),
                "set ATEN_CPU_CAPABILITY=avx2 in the environment");
  at::set_num_threads(kPortableThreads);
}

void load_mkl() {
  // MKL asks for the working directory to find the library that it is in, though the library's path is absolute.
  char path[PATH_MAX];
  const bool gone = ::getcwd(path, sizeof path) == nullptr;
  const int folder = gone ? ::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
  bool kept = !gone || (folder >= 0 && ::chdir("/") == 0);
  const HostDeviceScope nobody;  // it is the program's, not a device's
  const at::Tensor square = at::ones({8, 8});
  if (kept) at::mm(square, square);
  if (gone) kept = kept && ::fchdir(folder) == 0;  // the job's relative paths stay those of the folder that is gone
  if (folder >= 0) ::close(folder);
  if (!kept) throw Error(Exit::Usage, Mark{}, "the working directory is gone", "change to one that is there");
}

}  // namespace mgpu
