#include "shard/block_stream.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/memory.h"

using namespace mgpu;

TEST_SUITE_BEGIN("block_stream");

namespace {

const at::Device kGpu(at::kCUDA, 0);

/// What the GPU waits for copies of three blocks of so many values, each computed with for so many products.
double waited(std::int64_t values, int products) {
  std::vector<at::Tensor> weights;
  std::vector<BlockStream::Block> blocks;
  for (int i = 0; i < 3; ++i) weights.push_back(at::full({values}, i, at::kFloat));
  for (int i = 0; i < 3; ++i) blocks.push_back({i, {&weights[static_cast<std::size_t>(i)]}});
  BlockStream stream(kGpu, std::move(blocks));
  at::Tensor x = at::ones({2048, 2048}, kGpu);
  double share = 0.0;
  for (int round = 0; round < 2; ++round) {  // in the first the libraries load their kernels
    synchronize(kGpu);
    CopyWaits waits(kGpu);
    for (std::size_t block = 0; block < 3; ++block) {
      const BlockStream::Use use(&stream, static_cast<int>(block), &waits);
      for (int i = 0; i < products; ++i) x = at::mm(x, x).sigmoid_();
      CHECK(weights[block].mean().item<double>() == doctest::Approx(static_cast<double>(block)));
    }
    CHECK(waits.share() == 0.0);  // it has no end yet
    waits.end();
    synchronize(kGpu);
    share = waits.share();
  }
  return share;
}

}  // namespace

TEST_CASE("what a GPU waits for copies is measured") {
  CHECK(waited(std::int64_t{1} << 26, 0) > 0.5);  // 256 MB each, and nothing to compute but the check's mean
  CHECK(waited(256, 100) < 0.2);
}

TEST_SUITE_END();
