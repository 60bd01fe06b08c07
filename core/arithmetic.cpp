#include "core/arithmetic.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include <cstdlib>
#include <future>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/host_limits.h"
#include "core/passive_threads.h"

namespace mgpu {
namespace {

// oneDNN may choose a kernel by the number of threads: under `exact: portable` it is the same everywhere.
constexpr int kPortableThreads = 8;

/// Whether the system starts twice as many threads at once: LibTorch has a pool of its own beside OpenMP's.
bool are_startable(int threads) {
  const std::size_t wanted = 2 * static_cast<std::size_t>(threads);
  std::promise<void> end;
  const std::shared_future<void> ended = end.get_future().share();
  std::vector<std::thread> started;
  started.reserve(wanted);
  try {
    while (started.size() < wanted) started.emplace_back([ended] { ended.wait(); });
  } catch (const std::system_error&) {  // ulimit -u, or the cgroup's pids.max
  }
  end.set_value();
  for (std::thread& thread : started) thread.join();
  return started.size() == wanted;
}

/// LibTorch's own default is a thread per physical core of the machine, whatever the cgroup allows. For a thread that
/// does not start its pool would wait for ever, and OpenMP would end the process: then there is one.
void set_thread_count() {
  for (const char* variable : {"OMP_NUM_THREADS", "MKL_NUM_THREADS"})
    if (std::getenv(variable)) return;
  const int threads = host_threads();
  at::set_num_threads(threads > 1 && are_startable(threads) ? threads : 1);
}

}  // namespace

void set_exact_arithmetic() {
  return_to_working_directory();
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
  if (!are_startable(kPortableThreads))
    throw Error(
        Exit::Usage, Mark{},
        fmt::format("\"exact: portable\" computes with {} threads, and the system starts fewer", kPortableThreads),
        "raise ulimit -u, or the cgroup's pids.max");
  at::set_num_threads(kPortableThreads);
}

}  // namespace mgpu
