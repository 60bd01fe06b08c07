#include "tests/vae_ranks.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>

#include "core/fault_point.h"
#include "core/part_shapes.h"
#include "tests/testing.h"
#include "vae/vae_sizes.h"

namespace mgpu {

Team threads(std::vector<double> speeds) {
  const auto run = [](JointWork& together, std::size_t ranks, const std::function<void(std::size_t)>& work) {
    const auto begin = [](std::size_t, std::function<void()> part) {
      return std::async(std::launch::async, std::move(part));
    };
    together.run(ranks, begin, work);
  };
  return {std::move(speeds), run};
}

at::Tensor noise(at::IntArrayRef shape) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  return at::randn(shape, generator);
}

int exchanges_that_end(const std::function<void()>& work) {
  std::atomic<int> exchanges = 0;
  int bad = -1;
  fault_hook = [&](std::string_view) {
    if (exchanges++ == bad) throw std::runtime_error("lost");
  };
  work();
  const int all = exchanges;
  for (bad = 0; bad < all; bad += 3) {
    exchanges = 0;
    CHECK_THROWS_WITH_AS(work(), "lost", std::runtime_error);
  }
  fault_hook = nullptr;
  return all;
}

Weights coder_weights(const std::string& name) {
  return Weights(TensorFile::open(golden(name + ".safetensors")), name == "vae_sd" ? "first_stage_model" : "",
                 at::kFloat, at::kCPU);
}

VaeSizes coder_sizes(const Weights& weights) {
  PartShapes shapes(weights.file(), weights.prefix());
  return read_vae_sizes(shapes);
}

}  // namespace mgpu
