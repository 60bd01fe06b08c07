#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "cli/files/pixels.h"
#include "core/weights.h"
#include "tests/rendering.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

// The same picture, however its weights are filed.

using namespace mgpu;
using namespace mgpu::test;

namespace {

std::string raw_bytes(const at::Tensor& t) {
  return {static_cast<const char*>(t.const_data_ptr()), t.nbytes()};
}

std::vector<Entry> operator+(std::vector<Entry> a, const std::vector<Entry>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// How a file says that a weight is fp8 with a scale.
enum class Spelling { ScaleWeight, WeightScale, Dequantised };

/// The schnell golden with its blocks' matrices in scaled fp8, or as the fp32 values that those stand for.
std::vector<Entry> scaled(Spelling spelling, bool per_row = false) {
  std::vector<Entry> out;
  const auto file = TensorFile::open(golden("flux_schnell.safetensors"));
  if (spelling == Spelling::ScaleWeight) out.push_back({"scaled_fp8", DType::F8_E4M3, {2}});
  for (const auto& [name, info] : file->tensors()) {
    const at::Tensor stored = read(*file, name).to(at::kFloat).contiguous();
    const bool quantised =
        name.find("_blocks.") != std::string::npos && name.ends_with(".weight") && info.shape.size() == 2;
    if (!quantised) {
      out.push_back({name, DType::F32, info.shape, raw_bytes(stored)});
      continue;
    }
    const at::Tensor scale = (per_row ? stored.abs().amax(1, /*keepdim=*/true) : stored.abs().max()) / 448.0;
    const at::Tensor narrow = (stored / scale).to(at::kFloat8_e4m3fn);
    const std::string layer = name.substr(0, name.size() - std::string("weight").size());
    if (spelling == Spelling::Dequantised) {
      out.push_back({name, DType::F32, info.shape, raw_bytes((narrow.to(at::kFloat) * scale).contiguous())});
      continue;
    }
    out.push_back({name, DType::F8_E4M3, info.shape, raw_bytes(narrow)});
    if (spelling == Spelling::ScaleWeight) {
      out.push_back({layer + "scale_weight", DType::F32, per_row ? scale.sizes().vec() : std::vector<std::int64_t>{1},
                     raw_bytes(scale)});
    } else {
      const std::string format = "{\"format\": \"float8_e4m3fn\"}";
      out.push_back({layer + "weight_scale", DType::F32, scale.sizes().vec(), raw_bytes(scale)});
      out.push_back({layer + "comfy_quant", DType::U8, {static_cast<std::int64_t>(format.size())}, format});
    }
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("picture_files");

TEST_CASE("a checkpoint under ComfyUI's prefix, and an all-in-one, give the picture of the separate files") {
  const Folder folder;
  const Rgb8 separate = boat(folder, "separate", "flux_schnell.safetensors");
  const std::vector<Entry> diffusion = entries_of("flux_schnell.safetensors", "model.diffusion_model.");
  folder.write("prefixed.safetensors", test::safetensors(diffusion));
  CHECK(difference(boat(folder, "prefixed", "prefixed.safetensors"), separate) == 0);
  for (const char* vae : {"vae.", "first_stage_model."}) {
    folder.write(
        "all.safetensors",
        test::safetensors(diffusion + entries_of("picture_clip_l.safetensors", "text_encoders.clip_l.transformer.") +
                          entries_of("picture_t5xxl.safetensors", "text_encoders.t5xxl.transformer.") +
                          entries_of("vae_flux.safetensors", vae)));
    CHECK(difference(boat(folder, vae == std::string("vae.") ? "new" : "old", "all.safetensors", ""), separate) == 0);
  }
}

TEST_CASE("scaled fp8, in both spellings, gives the picture of the weights that it stands for") {
  const Folder folder;
  const auto render_as = [&](const char* name, Spelling spelling) {
    const std::string file = std::string(name) + ".safetensors";
    folder.write(file, test::safetensors(scaled(spelling)));
    return boat(folder, name, file);
  };
  const Rgb8 wide = render_as("wide", Spelling::Dequantised);
  CHECK(difference(render_as("older", Spelling::ScaleWeight), wide) <= 1);
  CHECK(difference(render_as("newer", Spelling::WeightScale), wide) <= 1);
  // The quantisation is no nothing: scales that were not read would hide here.
  CHECK(difference(boat(folder, "plain", "flux_schnell.safetensors"), wide) >= 1);
}

TEST_CASE("fp8 with one scale per row gives the picture of the weights that it stands for") {
  const Folder folder;
  const auto render_as = [&](const char* name, Spelling spelling) {
    const std::string file = std::string(name) + ".safetensors";
    folder.write(file, test::safetensors(scaled(spelling, /*per_row=*/true)));
    return boat(folder, name, file);
  };
  const Rgb8 wide = render_as("wide", Spelling::Dequantised);
  CHECK(difference(render_as("older", Spelling::ScaleWeight), wide) <= 1);
  CHECK(difference(render_as("newer", Spelling::WeightScale), wide) <= 1);
}

TEST_SUITE_END();
