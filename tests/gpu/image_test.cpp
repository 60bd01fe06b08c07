#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/arithmetic.h"
#include "core/family.h"
#include "core/image_nn.h"
#include "core/part_shapes.h"
#include "tests/testing.h"
#include "vae/slabs.h"
#include "vae/team.h"
#include "vae/vae_sizes.h"

using namespace mgpu;

TEST_SUITE_BEGIN("image");

namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};

double rounding(at::ScalarType dtype) {
  return dtype == at::kFloat ? 2e-6 : dtype == at::kHalf ? 6e-4 : 5e-3;
}

at::Tensor draw(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::randn(shape, at::TensorOptions(at::kCUDA)).to(dtype);
}

/// The same values on the CPU, in fp32.
at::Tensor wide(const at::Tensor& x) {
  return x.defined() ? x.to(at::kCPU, at::kFloat) : x;
}

/// What [R, S, 32, 2] adds up to.
at::Tensor totals(const at::Tensor& sums) {
  return sums.cpu().to(at::kDouble).flatten(0, 1).sum(0);
}

}  // namespace

TEST_CASE("rows are finished as on the CPU, their sums taken from what was stored") {
  for (const at::ScalarType dtype : kTypes) {
    for (const std::int64_t channels : {32, 64, 128, 160, 256, 512, 2048}) {
      for (const bool adds : {false, true}) {
        CAPTURE(c10::toString(dtype));
        CAPTURE(channels);
        const std::int64_t rows = 5, width = 300;
        const at::Tensor product = draw({rows, width, channels}, dtype), bias = draw({channels}, dtype);
        const at::Tensor residual = adds ? draw({rows, width, channels}, dtype) : at::Tensor();
        const at::Tensor out = at::empty_like(product), sums = empty_sums(out);
        finish_rows(product, bias, residual, out, sums);
        const at::Tensor expected = at::empty_like(wide(out)), stored = at::empty_like(expected);
        finish_rows(wide(product), wide(bias), wide(residual), expected, {});
        CHECK(relative_l2(out.cpu(), expected) <= rounding(dtype));
        const at::Tensor expected_sums = empty_sums(stored);
        finish_rows(wide(out), at::zeros({channels}), {}, stored, expected_sums);
        CHECK(relative_l2(totals(sums), totals(expected_sums)) <= 1e-5);
      }
    }
  }
}

TEST_CASE("rows of an enlargement are dealt from the four phases") {
  for (const at::ScalarType dtype : kTypes) {
    const std::int64_t channels = 64;
    const at::Tensor product = draw({5, 8, 4 * channels}, dtype), bias = draw({channels}, dtype);
    const at::Tensor out = draw({8, 14, channels}, dtype), sums = empty_sums(out);
    finish_upsampled_rows(product, bias, out, sums);
    const at::Tensor expected = at::empty_like(wide(out)), expected_sums = empty_sums(expected);
    finish_upsampled_rows(wide(product), wide(bias), expected, expected_sums);
    CHECK(relative_l2(out.cpu(), expected) <= rounding(dtype));
    CHECK(relative_l2(totals(sums), totals(expected_sums)) <= 5 * rounding(dtype));
  }
}

TEST_CASE("normalisation is the CPU's") {
  for (const at::ScalarType dtype : kTypes) {
    for (const std::int64_t channels : {32, 128, 512}) {
      const at::Tensor x = draw({3, 77, channels}, dtype), sums = empty_sums(x), same = at::empty_like(x);
      finish_rows(x, at::zeros({channels}, x.options()), {}, same, sums);
      const Norm norm{draw({channels}, dtype), draw({channels}, dtype)};
      const at::Tensor affine = group_affine(sums, 3 * 77, norm, 1e-6);
      const at::Tensor expected = at::silu(
          at::group_norm(wide(x).permute({2, 0, 1}).unsqueeze(0), 32, wide(norm.weight), wide(norm.bias), 1e-6));
      const at::Tensor out = at::empty_like(x);
      normalise_rows(x, affine, true, out);
      CHECK(relative_l2(out.cpu().permute({2, 0, 1}).unsqueeze(0), expected) <= rounding(dtype));
    }
  }
}

TEST_CASE("attention of one wide head") {
  set_exact_arithmetic();
  for (const at::ScalarType dtype : kTypes) {
    for (const std::int64_t keys : {1, 7, 64, 1025}) {
      const at::Tensor q = draw({33, 512}, dtype), k = draw({keys, 512}, dtype), v = draw({keys, 512}, dtype);
      CHECK(relative_l2(attend(q, k, v).cpu(), attend(wide(q), wide(k), wide(v))) <= 2 * rounding(dtype));
    }
  }
  const at::Tensor bad = at::full({4, 64}, std::numeric_limits<float>::quiet_NaN(), at::TensorOptions(at::kCUDA));
  CHECK(attend(bad, bad, bad).isnan().all().item<bool>());
}

TEST_CASE("the autoencoders' goldens in fp32, and in bf16") {
  set_exact_arithmetic();
  const auto cases = TensorFile::open(golden("vae_cases.safetensors"));
  for (const std::string name : {"vae_flux.decode.0.", "vae_flux.decode.2.", "vae_sd.decode.3."}) {
    CAPTURE(name);
    const std::string model = name.substr(0, name.find('.'));
    const auto file = TensorFile::open(golden(model + ".safetensors"));
    const std::string prefix = model == "vae_sd" ? "first_stage_model." : "";
    PartShapes shapes(*file, prefix);
    const VaeSizes sizes = read_vae_sizes(shapes);
    const at::Tensor latent = read(*cases, name + "latent"), image = read(*cases, name + "image");
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Decoder decoder(sizes, Weights(file, prefix, dtype, at::kCUDA));
      const at::Tensor out = decoder.forward(latent);
      CHECK(relative_l2(out.cpu(), image) <= (dtype == at::kFloat ? 1e-5 : 4e-2));
      CHECK(at::equal(out, decoder.forward(latent)));
    }
  }
}

TEST_CASE("slabs have the bits of bands, decoding and encoding") {
  set_exact_arithmetic();
  const auto file = TensorFile::open(golden("vae_flux.safetensors"));
  PartShapes shapes(*file, "");
  const VaeSizes sizes = read_vae_sizes(shapes);
  const BandRules small{.unit_values = 1 << 12, .strip_values = 1 << 14, .score_values = 1 << 14};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Weights weights(file, "", dtype, at::kCUDA);
    const std::vector<Decoder> decoder{Decoder(sizes, weights)};
    const std::vector<Encoder> encoder{Encoder(sizes, weights)};
    const at::Tensor z = draw({1, sizes.latent_channels, 37, 19}, at::kFloat),
                     image = draw({1, 3, 8 * 37, 8 * 19}, at::kFloat).clamp(-1, 1);
    const at::Tensor decoded = decode_in_bands(decoder, Team::alone(), z, small),
                     encoded = encode_in_bands(encoder, Team::alone(), image, small).mean;
    for (const bool together : {false, true}) {
      CAPTURE(together);
      const Slabs slabs{.together = together};
      CHECK(at::equal(decode_in_slabs(decoder, Team::alone(), z, slabs, small), decoded));
      CHECK(at::equal(encode_in_slabs(encoder, Team::alone(), image, slabs, small).mean, encoded));
    }
  }
}

TEST_SUITE_END();
