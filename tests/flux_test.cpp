#include "core/models/flux.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/models/flux_sizes.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("flux");

namespace {

/// A small model of tests/goldens with its cases, in fp32 on the CPU.
struct Golden {
  explicit Golden(const std::string& name)
      : file(TensorFile::open(golden(name + ".safetensors"))),
        cases(TensorFile::open(golden("flux_cases.safetensors"))),
        model(find_part(file, kDiffusionRole).as<FluxSizes>(), Weights(file, "", at::kFloat, at::kCPU)),
        prefix(name + ".") {}

  at::Tensor get(int index, const std::string& name) const {
    return read(*cases, fmt::format("{}{}.{}", prefix, index, name));
  }
  bool has(int index) const { return cases->find(fmt::format("{}{}.x", prefix, index)) != nullptr; }

  FluxCondition condition(int index) const {
    const bool guided = model.sizes().guidance;
    return {get(index, "context"), get(index, "pooled"), guided ? get(index, "guidance").item<float>() : 0.0};
  }

  at::Tensor forward(int index) const {
    return model.forward(get(index, "x"), get(index, "sigma").item<float>(), condition(index), LocalOps());
  }

  std::shared_ptr<const TensorFile> file, cases;
  Flux model;
  std::string prefix;
};

}  // namespace

TEST_CASE("the velocity is that of diffusers' transformer") {
  for (const char* name : {"flux_dev", "flux_schnell"}) {
    const Golden golden_model(name);
    int seen = 0;
    for (int i = 0; i < 8; ++i) {
      if (!golden_model.has(i)) continue;
      CAPTURE(name);
      CAPTURE(i);
      CHECK(relative_l2(golden_model.forward(i), golden_model.get(i, "velocity")) <= 1e-5);
      ++seen;
    }
    CHECK(seen >= 2);
  }
}

TEST_CASE("each block hands on what diffusers' does") {
  const Golden golden_model("flux_schnell");
  const Flux& model = golden_model.model;
  const LocalOps ops;
  const FluxCondition condition = golden_model.condition(3);
  const double sigma = golden_model.get(3, "sigma").item<float>();
  const FluxModulation modulation = model.modulate({{&sigma, 1}, condition}, ops);
  FluxState state = model.begin(golden_model.get(3, "x"), condition, ops);
  const RotaryTable rotary = model.rotary(state);
  state.rotary = &rotary;
  state.modulation = &modulation;
  for (int i = 0; i < model.block_count(); ++i) {
    model.block(i, state, ops);
    CAPTURE(i);
    if (i < model.sizes().depth) {
      CHECK(relative_l2(state.image, golden_model.get(3, fmt::format("double.{}.img", i))) <= 1e-5);
      CHECK(relative_l2(state.text, golden_model.get(3, fmt::format("double.{}.txt", i))) <= 1e-5);
    } else {
      CHECK(relative_l2(state.image, golden_model.get(3, fmt::format("single.{}", i - model.sizes().depth))) <= 1e-5);
    }
  }
}

TEST_CASE("guidance and sigma move the velocity") {
  const Golden golden_model("flux_dev");
  FluxCondition condition = golden_model.condition(0);
  const at::Tensor x = golden_model.get(0, "x");
  const at::Tensor base = golden_model.model.forward(x, 0.5, condition, LocalOps());
  CHECK(relative_l2(golden_model.model.forward(x, 0.6, condition, LocalOps()), base) > 1e-3);
  condition.guidance += 2.0;
  CHECK(relative_l2(golden_model.model.forward(x, 0.5, condition, LocalOps()), base) > 1e-3);
}

TEST_CASE("an odd latent is refused with its shape") {
  const Golden golden_model("flux_schnell");
  CHECK_THROWS_WITH_AS(golden_model.model.forward(at::zeros({1, 16, 5, 4}), 1.0, golden_model.condition(3), LocalOps()),
                       doctest::Contains("latent 1x16x5x4 is not [1, 16, even, even]"), std::logic_error);
}

TEST_SUITE_END();
