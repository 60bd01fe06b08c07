#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/ranges.h>
#include <lodepng.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/family.h"
#include "core/part_shapes.h"
#include "tests/testing.h"
#include "vae/autoencoder.h"
#include "vae/codec.h"
#include "vae/vae_sizes.h"

using namespace mgpu;

TEST_SUITE_BEGIN("vae");

namespace {

const LatentFormat kPlain{16, 8, 1.0, 0.0};
const LatentFormat kFlux{16, 8, 0.3611, 0.1159};

Weights open(const std::string& path, const std::string& prefix = "") {
  return Weights(TensorFile::open(path), prefix, at::kFloat, at::kCPU);
}

VaeSizes sizes_of(const Weights& weights) {
  PartShapes shapes(weights.file(), weights.prefix());
  return read_vae_sizes(shapes);
}

/// A small autoencoder of tests/goldens with its cases, in fp32 on the CPU.
struct Golden {
  explicit Golden(const std::string& model_name)
      : name(model_name),
        weights(open(golden(name + ".safetensors"), name == "vae_sd" ? "first_stage_model" : "")),
        cases(TensorFile::open(golden("vae_cases.safetensors"))),
        decoder(sizes_of(weights), weights),
        encoder(sizes_of(weights), weights) {}

  /// Names of this model's cases of one kind, e.g. "vae_flux.decode.0.".
  std::vector<std::string> names(const std::string& kind) const {
    std::vector<std::string> out;
    for (int i = 0; i < 8; ++i) {
      const std::string prefix = fmt::format("{}.{}.{}.", name, kind, i);
      if (cases->find(prefix + (kind == "decode" ? "latent" : "pixels"))) out.push_back(prefix);
    }
    return out;
  }
  at::Tensor get(const std::string& tensor) const { return read(*cases, tensor); }

  std::string name;
  Weights weights;
  std::shared_ptr<const TensorFile> cases;
  Decoder decoder;
  Encoder encoder;
};

/// The file `from` with each `text` in its header replaced; removed at the end.
struct Edited {
  Edited(const std::string& from, const std::string& text, const std::string& replacement)
      : path((std::filesystem::temp_directory_path() / fmt::format("mgpu-vae-test-{}.safetensors", ++made)).string()) {
    std::ifstream in(from, std::ios::binary);
    std::stringstream all;
    all << in.rdbuf();
    const std::string bytes = all.str();
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    std::string header = bytes.substr(sizeof length, length);
    REQUIRE(header.find(text) != std::string::npos);
    for (std::size_t at = 0; (at = header.find(text, at)) != std::string::npos; at += replacement.size())
      header.replace(at, text.size(), replacement);
    const std::uint64_t edited_length = header.size();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&edited_length), sizeof edited_length);
    out << header << bytes.substr(sizeof length + length);
  }
  ~Edited() { std::filesystem::remove(path); }
  Edited(const Edited&) = delete;
  Edited& operator=(const Edited&) = delete;

  std::string path;
  inline static int made = 0;
};

/// A coder on its one device.
template <class Coder>
auto whole(const Coder& coder) {
  return [&coder](const at::Tensor& x) { return coder.forward(x); };
}

/// The message of the Error that `action` throws, and "" when it throws none.
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(error.code() == Exit::Usage);
    return error.message();
  }
  return "";
}

/// Loads the file by the sizes of a sound one.
void load_all(const std::string& path) {
  const Weights weights = open(path);
  const VaeSizes sizes = sizes_of(open(golden("vae_flux.safetensors")));
  Decoder(sizes, weights);
  Encoder(sizes, weights);
}

}  // namespace

TEST_CASE("decodes are those of diffusers' autoencoder") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const Golden model(name);
    const auto names = model.names("decode");
    CHECK(!names.empty());
    for (const std::string& prefix : names) {
      CAPTURE(prefix);
      CHECK(relative_l2(model.decoder.forward(model.get(prefix + "latent")), model.get(prefix + "image")) <= 1e-5);
    }
  }
}

TEST_CASE("encodes are those of diffusers' autoencoder") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const Golden model(name);
    const auto names = model.names("encode");
    CHECK(!names.empty());
    for (const std::string& prefix : names) {
      CAPTURE(prefix);
      const LatentDistribution latent = model.encoder.forward(model.get(prefix + "pixels"));
      CHECK(relative_l2(latent.mean, model.get(prefix + "mean")) <= 1e-5);
      CHECK(relative_l2(latent.logvar, model.get(prefix + "logvar")) <= 1e-5);
    }
  }
}

TEST_CASE("sizes come from the tensors") {
  const VaeSizes flux = sizes_of(open(golden("vae_flux.safetensors")));
  CHECK(flux.latent_channels == 16);
  CHECK(flux.channels == std::vector<int>{32, 32, 64, 64});
  CHECK(flux.residual_blocks == 1);
  CHECK(!flux.quant);
  CHECK(flux.factor() == 8);

  const VaeSizes sd = sizes_of(open(golden("vae_sd.safetensors"), "first_stage_model"));
  CHECK(sd.latent_channels == 4);
  CHECK(sd.channels == std::vector<int>{32, 64});
  CHECK(sd.residual_blocks == 2);
  CHECK(sd.quant);
  CHECK(sd.factor() == 2);
}

TEST_CASE("steps are named after their tensors and run one by one to the same bits") {
  const Golden model("vae_flux");
  std::vector<std::string> names;
  const at::Tensor z = model.get("vae_flux.decode.0.latent");
  MeasuredStatistics statistics;
  const BandOps ops(Bands(z.size(2), z.size(3), 64), statistics);
  ImageRows x = rows_of(z, {0, z.size(2)}, at::kCPU, at::kFloat);
  for (const AutoencoderStep& step : model.decoder.steps()) {
    names.push_back(step.name);
    x = step.run(x, ops);
  }
  CHECK(at::equal(image_of(x), model.decoder.forward(z)));
  CHECK(fmt::format("{}", fmt::join(names, " ")) ==
        "decoder.conv_in decoder.mid.block_1 decoder.mid.attn_1 decoder.mid.block_2 "
        "decoder.up.3.block.0 decoder.up.3.block.1 decoder.up.3.upsample "
        "decoder.up.2.block.0 decoder.up.2.block.1 decoder.up.2.upsample "
        "decoder.up.1.block.0 decoder.up.1.block.1 decoder.up.1.upsample "
        "decoder.up.0.block.0 decoder.up.0.block.1 decoder.conv_out");
}

TEST_CASE("a codec's image is the decode in 0..1 after the latent's scale and shift") {
  const Golden model("vae_flux");
  const at::Tensor z = model.get("vae_flux.decode.0.latent");
  const at::Tensor expected = ((model.get("vae_flux.decode.0.image") + 1) / 2).clamp(0, 1);
  const at::Tensor image = decode((z - 0.1159) * 0.3611, kFlux, whole(model.decoder));
  CHECK((image.scalar_type() == at::kFloat));
  CHECK(relative_l2(image, expected) <= 1e-5);
  CHECK(image.min().item<float>() >= 0.0f);
  CHECK(image.max().item<float>() <= 1.0f);
}

TEST_CASE("a codec's latent is the mode of the encode after scale and shift") {
  const Golden model("vae_flux");
  const at::Tensor image = (model.get("vae_flux.encode.0.pixels") + 1) / 2;
  const at::Tensor latent = encode(image, kFlux, whole(model.encoder));
  CHECK(relative_l2(latent, (model.get("vae_flux.encode.0.mean") - 0.1159) * 0.3611) <= 1e-5);
}

TEST_CASE("a mask at a latent's size is bilinear between the four nearest pixels") {
  const at::Tensor mask = at::arange(64, at::kFloat).reshape({1, 1, 4, 16}) / 64;
  // The middle of 8x2 pixels: columns 3 and 4, rows 0 and 1.
  CHECK(latent_mask(mask, 2, 2)[0][0][0][0].item<float>() == doctest::Approx((3 + 4 + 19 + 20) / 4.0 / 64));
  CHECK(at::equal(latent_mask(mask, 4, 16), mask));
}

TEST_CASE("an inpaint UNet's channels: the mask, and the image with grey under it") {
  const Golden model("vae_flux");
  const at::Tensor image = (model.get("vae_flux.encode.0.pixels") + 1) / 2;
  at::Tensor mask = at::zeros({1, 1, image.size(2), image.size(3)});
  mask.narrow(3, 0, 16).fill_(0.6);  // is rounded: all or nothing
  mask.narrow(3, 16, 8).fill_(0.4);
  at::Tensor masked = image.clone();
  masked.narrow(3, 0, 16).fill_(0.5);
  const at::Tensor channels = inpaint_channels(image, mask, kFlux, whole(model.encoder));
  REQUIRE(channels.sizes() == at::IntArrayRef({1, 17, image.size(2) / 8, image.size(3) / 8}));
  CHECK(at::equal(channels.narrow(1, 1, 16), encode(masked, kFlux, whole(model.encoder))));
  const at::Tensor expected = at::zeros({1, 1, channels.size(2), channels.size(3)});
  expected.narrow(3, 0, 2).fill_(1);
  CHECK(at::equal(channels.narrow(1, 0, 1), expected));
  const at::Tensor blank = blank_inpaint_channels(2, 3);
  CHECK(blank.sizes() == at::IntArrayRef({1, 5, 2, 3}));
  CHECK(blank[0][0].eq(1).all().item<bool>());
  CHECK(blank[0][2][1][2].item<float>() == -0.6876F);
}

TEST_CASE("Flux's latent format is its autoencoder's") {
  int seen = 0;
  for (const FamilyRow& row : family_rows()) {
    if (!row.training || row.training->prediction != Prediction::Velocity) continue;
    ++seen;
    CHECK(row.training->latent.channels == kFlux.channels);
    CHECK(row.training->latent.scale == kFlux.scale);
    CHECK(row.training->latent.shift == kFlux.shift);
  }
  CHECK(seen == 2);
}

TEST_CASE("an image has the same bits in a batch and alone") {
  const Golden model("vae_flux");
  const at::Tensor latent = model.get("vae_flux.decode.1.latent");
  const at::Tensor both = decode(latent, kPlain, whole(model.decoder));
  const at::Tensor pixels = (model.get("vae_flux.encode.1.pixels") + 1) / 2;
  const at::Tensor codes = encode(pixels, kPlain, whole(model.encoder));
  REQUIRE(both.size(0) == 2);
  REQUIRE(codes.size(0) == 2);
  for (int i = 0; i < 2; ++i) {
    CHECK(at::equal(both.narrow(0, i, 1), decode(latent.narrow(0, i, 1), kPlain, whole(model.decoder))));
    CHECK(at::equal(codes.narrow(0, i, 1), encode(pixels.narrow(0, i, 1), kPlain, whole(model.encoder))));
  }
}

TEST_CASE("the reference pipeline's latents become its pictures") {
  const auto cases = TensorFile::open(golden("picture_cases.safetensors"));
  const Golden model("vae_flux");
  const std::pair<const char*, const char*> pictures[] = {
      {"dev.0", "picture_dev-0000-7.png"},
      {"dev.1", "picture_dev-0001-18446744073709551615.png"},
      {"schnell.0", "picture_schnell-0000-1234567.png"},
  };
  for (const auto& [name, file] : pictures) {
    const std::string shown = name;  // clang captures no structured binding
    CAPTURE(shown);
    std::vector<unsigned char> pixels;
    unsigned width = 0, height = 0;
    REQUIRE(lodepng::decode(pixels, width, height, golden(file), LCT_RGB) == 0);
    const at::Tensor expected = at::from_blob(pixels.data(), {height, width, 3}, at::kByte).to(at::kInt);
    const at::Tensor image = decode(read(*cases, std::string(name) + ".latent"), kFlux, whole(model.decoder));
    const at::Tensor bytes = (image[0] * 255).to(at::kByte).permute({1, 2, 0}).to(at::kInt);
    CHECK((bytes - expected).abs().max().item<int>() <= 1);
  }
}

TEST_CASE("an image that is not finite is refused") {
  const Golden model("vae_flux");
  at::Tensor latent = at::zeros({1, 16, 2, 2});
  latent[0][3][1][0] = std::numeric_limits<float>::quiet_NaN();
  try {
    decode(latent, kPlain, whole(model.decoder));
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == Exit::ImageFailed);
    CHECK(error.message() == "the decoded image is not finite");
  }
}

TEST_CASE("a decoder alone needs no encoder in the file") {
  const Edited file(golden("vae_flux.safetensors"), "\"encoder.", "\"encodex.");
  const Weights weights = open(file.path);
  CHECK(Decoder(sizes_of(weights), weights).steps().size() == 16);
  CHECK(message_of([&] { Encoder(sizes_of(weights), weights); }) == "tensor \"encoder.conv_in.weight\" is missing");
}

TEST_CASE("a missing tensor is named") {
  const Edited file(golden("vae_flux.safetensors"), "\"decoder.mid.attn_1.q.bias\"", "\"decoder.mid.attn_1.x.bias\"");
  CHECK(message_of([&] { load_all(file.path); }) == "tensor \"decoder.mid.attn_1.q.bias\" is missing");
}

TEST_CASE("a tensor of another shape is named with both shapes") {
  const Edited file(golden("vae_flux.safetensors"), "\"shape\":[64,64,1,1]", "\"shape\":[64,32,2,1]");
  CHECK(message_of([&] { load_all(file.path); }) ==
        "tensor \"decoder.mid.attn_1.q.weight\" has shape [64, 32, 2, 1], expected [64, 64, 1, 1]");
}

TEST_SUITE_END();
