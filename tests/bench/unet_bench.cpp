// Times UNet steps on a GPU, over a checkpoint of scripts/make_checkpoint.py.
//   mgpu-unet-bench CHECKPOINT SIDE...    sides in pixels, e.g. 1024
// One line of JSON per side: milliseconds (median) of a step with prompt and negative prompt, launched kernel by kernel
// and replayed from a CUDA graph with its branches one after the other or side by side; and of one branch alone.
//   mgpu-unet-bench CHECKPOINT SIDE once  one branch, launched, for a profiler

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>

#include "cli/register_families.h"
#include "core/arithmetic.h"
#include "core/family.h"
#include "core/models/unet.h"
#include "core/models/unet_sizes.h"

using namespace mgpu;

namespace {

constexpr int kRepeats = 30, kWarmUps = 5;

struct Branch {
  at::Tensor x, context, vector;
  UNetText text;
};

/// Milliseconds of `step`, the median of many.
double time_of(const std::function<void()>& step) {
  std::vector<float> times;
  for (int i = 0; i < kRepeats + kWarmUps; ++i) {
    at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
    begin.record();
    step();
    end.record();
    end.synchronize();
    if (i >= kWarmUps) times.push_back(begin.elapsed_time(end));
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}

class Bench {
 public:
  Bench(const std::string& path, std::int64_t side)
      : file_(TensorFile::open(path)),
        part_(find_part(file_, kDiffusionRole)),
        unet_(part_.as<UNetSizes>(), Weights(file_, part_.prefix, at::kHalf, at::kCUDA)) {
    const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kHalf);
    const UNetSizes& sizes = part_.as<UNetSizes>();
    for (int i = 0; i < 2; ++i) {
      Branch branch;
      branch.x = at::randn({1, sizes.channels_in, side / 8, side / 8}, options);
      branch.context = at::randn({1, 77, sizes.context}, options);
      if (sizes.vector > 0) branch.vector = at::randn({1, sizes.vector}, options);
      branch.text = unet_.text(branch.context, ops_);
      branches_.push_back(branch);
    }
  }

  /// What comes before the blocks: it reads the timestep from main memory, which no graph does.
  UNetState begin(const Branch& branch) { return unet_.begin(branch.x, 500, branch.vector, ops_); }
  at::Tensor evaluate(const Branch& branch, UNetState state) {
    state.text = &branch.text;
    for (int i = 0; i < unet_.block_count(); ++i) unet_.block(i, state, ops_);
    return unet_.finish(state, ops_);
  }
  void launched(std::size_t branches) {
    for (std::size_t i = 0; i < branches; ++i) evaluate(branches_[i], begin(branches_[i]));
  }

  /// A graph of a step, whose branches run one after the other, or side by side.
  std::shared_ptr<at::cuda::CUDAGraph> captured(std::size_t branches, bool side_by_side) {
    const c10::cuda::CUDAStream main = c10::cuda::getStreamFromPool(), other = c10::cuda::getStreamFromPool();
    const c10::cuda::CUDAStreamGuard guard(main);
    launched(branches);
    std::vector<UNetState> begun;
    for (const Branch& branch : branches_) begun.push_back(begin(branch));
    c10::cuda::device_synchronize();
    auto graph = std::make_shared<at::cuda::CUDAGraph>();
    graph->capture_begin(at::cuda::MempoolId_t{0, 0}, cudaStreamCaptureModeThreadLocal);
    if (side_by_side) {
      at::cuda::CUDAEvent fork, join;
      fork.record(main);
      fork.block(other);
      {
        const c10::cuda::CUDAStreamGuard inner(other);
        outputs_.push_back(evaluate(branches_[1], begun[1]));
      }
      outputs_.push_back(evaluate(branches_[0], begun[0]));
      join.record(other);
      join.block(main);
    } else {
      for (std::size_t i = 0; i < branches; ++i) outputs_.push_back(evaluate(branches_[i], begun[i]));
    }
    graph->capture_end();
    inputs_.push_back(std::move(begun));
    return graph;
  }

 private:
  std::shared_ptr<const TensorFile> file_;
  Part part_;
  UNet unet_;
  LocalOps ops_;
  std::vector<Branch> branches_;
  std::vector<std::vector<UNetState>> inputs_;  ///< of the graphs, which read them at each replay
  std::vector<at::Tensor> outputs_;
};

void run(const std::string& path, std::int64_t side) {
  Bench bench(path, side);
  const double launched_two = time_of([&] { bench.launched(2); }), launched_one = time_of([&] { bench.launched(1); });
  const auto in_turn = bench.captured(2, false), alone = bench.captured(1, false), both = bench.captured(2, true);
  fmt::print(
      "{{\"side\": {}, \"launched\": {:.2f}, \"launched_one\": {:.2f}, \"graph\": {:.2f}, \"graph_side_by_side\": "
      "{:.2f}, \"graph_one\": {:.2f}}}\n",
      side, launched_two, launched_one, time_of([&] { in_turn->replay(); }), time_of([&] { both->replay(); }),
      time_of([&] { alone->replay(); }));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    set_exact_arithmetic();
    register_families();
    const c10::InferenceMode inference;
    if (argc > 3 && std::strcmp(argv[3], "once") == 0) {
      Bench bench(argv[1], std::stoll(argv[2]));
      bench.launched(1);
      c10::cuda::device_synchronize();
      return 0;
    }
    for (int i = 2; i < argc; ++i) run(argv[1], std::stoll(argv[i]));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
