#include "core/models/unet.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "core/arithmetic.h"
#include "core/family.h"
#include "core/models/unet_sizes.h"
#include "tests/drawn_weights.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("unet");

TEST_CASE("the goldens of every family, in fp32 and in half precision, the same bits again") {
  set_exact_arithmetic();
  const auto cases = TensorFile::open(golden("unet_cases.safetensors"));
  const test::Folder folder;
  for (const std::string model : {"sd1", "sd2", "sdxl", "refiner", "sd1_inpaint"}) {
    const auto file =
        TensorFile::open(folder.write(model + ".safetensors", test::safetensors(test::drawn_unet(model, ""))));
    const Part part = find_part(file, kDiffusionRole);
    const auto forward = [&](int index, at::ScalarType dtype) {
      const UNet unet(part.as<UNetSizes>(), Weights(file, part.prefix, dtype, at::kCUDA));
      const auto get = [&](const char* what) { return read(*cases, fmt::format("{}.{}.{}", model, index, what)); };
      const at::Tensor vector = part.as<UNetSizes>().vector > 0 ? get("vector") : at::Tensor();
      return unet.forward(get("x").to(at::kCUDA), get("timestep").item<float>(), get("context"), vector, LocalOps())
          .cpu();
    };
    for (int index = 0; index < 3; ++index) {
      CAPTURE(model);
      CAPTURE(index);
      const at::Tensor expected = read(*cases, fmt::format("{}.{}.output", model, index));
      CHECK(relative_l2(forward(index, at::kFloat), expected) <= 3e-5);
      const at::Tensor half = forward(index, at::kHalf);
      CHECK(relative_l2(half, expected) <= 1e-2);
      CHECK(relative_l2(forward(index, at::kBFloat16), expected) <= 6e-2);
      CHECK(at::equal(half, forward(index, at::kHalf)));
    }
  }
}

TEST_SUITE_END();
