#include "core/models/flux.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cstdlib>

#include "core/arithmetic.h"
#include "core/family.h"
#include "core/models/flux_sizes.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("flux");

namespace {

at::Tensor forward(const std::shared_ptr<const TensorFile>& file, const TensorFile& cases, const std::string& prefix,
                   at::ScalarType dtype) {
  const FluxSizes sizes = find_part(file, kDiffusionRole).as<FluxSizes>();
  const Flux model(sizes, Weights(file, "", dtype, at::kCUDA));
  const auto get = [&](const char* name) { return read(cases, prefix + name); };
  const FluxCondition condition{get("context"), get("pooled"), sizes.guidance ? get("guidance").item<float>() : 0.0};
  return model.forward(get("x").to(at::kCUDA), get("sigma").item<float>(), condition, LocalOps()).cpu();
}

}  // namespace

TEST_CASE("the goldens in fp32, IEEE and not TF32") {
  set_exact_arithmetic();
  const auto cases = TensorFile::open(golden("flux_cases.safetensors"));
  for (const std::string name : {"flux_dev.0.", "flux_dev.1.", "flux_schnell.3.", "flux_schnell.4."}) {
    CAPTURE(name);
    const auto file = TensorFile::open(golden(name.substr(0, name.find('.')) + ".safetensors"));
    CHECK(relative_l2(forward(file, *cases, name, at::kFloat), read(*cases, name + "velocity")) <= 1e-5);
    const at::Tensor narrow = forward(file, *cases, name, at::kBFloat16);
    CHECK(relative_l2(narrow, read(*cases, name + "velocity")) <= 3e-2);
    CHECK(at::equal(narrow, forward(file, *cases, name, at::kBFloat16)));
  }
}

// MGPU_ACCURACY="CHECKPOINT CASES": the output of scripts/gpu_accuracy.py.
TEST_CASE("a full-size forward in bf16 errs at most 1.1 times as much as the reference in bf16") {
  const char* setting = std::getenv("MGPU_ACCURACY");
  REQUIRE_MESSAGE(setting, "set MGPU_ACCURACY to the checkpoint and the cases that scripts/gpu_accuracy.py made");
  const std::string text = setting;
  const std::size_t space = text.find(' ');
  const auto file = TensorFile::open(text.substr(0, space));
  const auto cases = TensorFile::open(text.substr(space + 1));
  set_exact_arithmetic();

  const at::Tensor exact = read(*cases, "velocity_fp32");
  const double theirs = relative_l2(read(*cases, "velocity_bf16"), exact);
  const double ours = relative_l2(forward(file, *cases, "", at::kBFloat16), exact);
  MESSAGE("relative L2 against fp32: ours ", ours, ", the reference's ", theirs, ", ratio ", ours / theirs);
  CHECK(ours <= 1.1 * theirs);
}

TEST_SUITE_END();
