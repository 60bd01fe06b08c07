#include "core/models/unet.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "core/models/unet_sizes.h"
#include "tests/drawn_weights.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("unet");

namespace {

/// The model's tensors; of a faint one, what writes to the residual stream is 64 times weaker, so that the epsilons of
/// the norms show.
std::vector<test::Entry> tensors_of(const std::string& model, const std::string& prefix) {
  std::vector<test::Entry> out = test::drawn_unet(model, prefix);
  if (!model.ends_with("_faint")) return out;
  for (test::Entry& entry : out) {
    const bool writes =
        std::ranges::any_of(std::array{"input_blocks.0.0.", ".out_layers.3.", ".proj_out."},
                            [&](const char* part) { return entry.name.find(part) != std::string::npos; });
    if (writes) test::scale(entry, 1.0F / 64);
  }
  return out;
}

/// A small UNet of a family's shape with its cases, in fp32 on the CPU.
struct Golden {
  explicit Golden(const std::string& model, const std::string& prefix = {})
      : name(model),
        file(TensorFile::open(folder.write("unet.safetensors", test::safetensors(tensors_of(model, prefix))))),
        cases(TensorFile::open(golden("unet_cases.safetensors"))),
        part(find_part(file, kDiffusionRole)),
        unet(part.as<UNetSizes>(), Weights(file, part.prefix, at::kFloat, at::kCPU)) {}

  at::Tensor get(int index, const std::string& what) const {
    return read(*cases, fmt::format("{}.{}.{}", name, index, what));
  }
  double timestep(int index) const { return get(index, "timestep").item<float>(); }
  at::Tensor vector(int index) const { return unet.sizes().vector > 0 ? get(index, "vector") : at::Tensor(); }
  at::Tensor forward(int index) const {
    return unet.forward(get(index, "x"), timestep(index), get(index, "context"), vector(index), LocalOps());
  }
  /// The same, block by block; `around` is told before (false) and after (true) each block.
  template <class Around>
  at::Tensor forward_by_blocks(int index, const Around& around) const {
    const LocalOps ops;
    const UNetText text = unet.text(get(index, "context"), ops);
    UNetState state = unet.begin(get(index, "x"), timestep(index), vector(index), ops);
    state.text = &text;
    for (int i = 0; i < unet.block_count(); ++i) {
      around(i, state, false);
      unet.block(i, state, ops);
      around(i, state, true);
    }
    return unet.finish(state, ops);
  }

  std::string name;
  test::Folder folder;
  std::shared_ptr<const TensorFile> file, cases;
  Part part;
  UNet unet;
};

constexpr int kCases = 3;

}  // namespace

TEST_CASE("every family's shape predicts what diffusers' UNet does") {
  const std::pair<const char*, const char*> models[] = {
      {"sd1", "sd1"},
      {"sd1_inpaint", "sd1-inpaint"},
      {"sd2", "sd2"},
      {"sdxl", "sdxl"},
      {"sdxl_inpaint", "sdxl-inpaint"},
      {"refiner", "sdxl-refiner"},
      {"koala", "sdxl"},
      {"sd1_faint", "sd1"},
  };
  for (const auto& [model, family] : models) {
    const std::string shown = model;  // clang captures no structured binding
    CAPTURE(shown);
    const Golden small(model);
    CHECK(small.part.row->name == family);
    for (int i = 0; i < kCases; ++i) {
      CAPTURE(i);
      CHECK(relative_l2(small.forward(i), small.get(i, "output")) <= 1e-5);
    }
  }
}

TEST_CASE("a checkpoint's prefix is the UNet's") {
  const Golden small("sd1", "model.diffusion_model.");
  CHECK(small.part.prefix == "model.diffusion_model.");
  CHECK(relative_l2(small.forward(0), small.get(0, "output")) <= 1e-5);
}

TEST_CASE("block by block, each up block takes the skip that its name says, and no other") {
  for (const char* model : {"sd1", "sdxl", "koala"}) {
    CAPTURE(model);
    const Golden small(model);
    const std::vector<UNetBlockName> names = unet_blocks(small.unet.sizes());
    REQUIRE(names.size() == static_cast<std::size_t>(small.unet.block_count()));
    std::vector<at::Tensor> hidden;
    int taken = 0;
    const at::Tensor out = small.forward_by_blocks(2, [&](int i, UNetState& state, bool after) {
      const UNetBlockName& name = names[static_cast<std::size_t>(i)];
      if (name.kind == "down" && after) {
        CHECK(state.skips[static_cast<std::size_t>(name.number)].equal(state.h));
      } else if (name.skip && !after) {
        hidden = state.skips;  // as if they were on other devices
        state.skips.assign(hidden.size(), at::Tensor());
        state.skips[static_cast<std::size_t>(*name.skip)] = hidden[static_cast<std::size_t>(*name.skip)];
      } else if (name.skip) {
        CHECK_FALSE(state.skips[static_cast<std::size_t>(*name.skip)].defined());
        state.skips = hidden;
        state.skips[static_cast<std::size_t>(*name.skip)] = at::Tensor();
        ++taken;
      }
    });
    CHECK(out.equal(small.forward(2)));
    CHECK(taken == static_cast<int>(small.unet.sizes().up.size()));
  }
}

TEST_CASE("blocks are named in the order in which they run") {
  UNetSizes sizes;
  sizes.down.resize(3), sizes.up.resize(3);
  sizes.middle_residuals = 2;
  const std::vector<UNetBlockName> names = unet_blocks(sizes);
  REQUIRE(names.size() == 7);
  CHECK(names[0].kind == "down");
  CHECK_FALSE(names[2].skip.has_value());
  CHECK(names[3].kind == "middle");
  CHECK(names[4].skip == 2);
  CHECK(names[6].number == 2);
  CHECK(names[6].skip == 0);
  sizes.middle_residuals = 0;
  CHECK(unet_blocks(sizes)[3].kind == "up");
}

TEST_CASE("timestep, text and vector move the prediction") {
  const Golden small("sdxl");
  const LocalOps ops;
  const at::Tensor x = small.get(0, "x"), context = small.get(0, "context"), vector = small.vector(0);
  const at::Tensor base = small.unet.forward(x, 500, context, vector, ops);
  CHECK(relative_l2(small.unet.forward(x, 501, context, vector, ops), base) > 1e-4);
  CHECK(relative_l2(small.unet.forward(x, 500, context.flip(1), vector * 2, ops), base) > 1e-4);
  CHECK(relative_l2(small.unet.forward(x, 500, context * 2, vector, ops), base) > 1e-4);
}

TEST_CASE("a latent of other channels is refused with its shape") {
  const Golden small("sd1_inpaint");
  CHECK_THROWS_WITH_AS(small.unet.forward(at::zeros({1, 4, 8, 8}), 1, small.get(0, "context"), {}, LocalOps()),
                       doctest::Contains("latent 1x4x8x8 is not [1, 9, h, w]"), std::logic_error);
}

TEST_SUITE_END();
