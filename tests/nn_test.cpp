#include "core/nn.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>

#include "core/elementwise.h"
#include "core/ops.h"
#include "tests/testing.h"

using namespace mgpu;

namespace {

at::Tensor draw(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

}  // namespace

TEST_SUITE_BEGIN("nn");

TEST_CASE("layer norm with modulation, by its definition") {
  const at::Tensor x = draw({1, 5, 16}, 1) * 3 + 2, shift = draw({1, 1, 16}, 2), scale = draw({1, 1, 16}, 3);
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor centred = wide - wide.mean(-1, true);
  const at::Tensor normal = centred / (centred.square().mean(-1, true) + 1e-6).sqrt();
  CHECK(relative_l2(layer_norm_modulate(x, shift, scale), normal * (scale.to(at::kDouble) + 1) + shift) < 1e-6);
}

TEST_CASE("a gate of 0 keeps the residual and a gate of 1 adds all") {
  const at::Tensor x = draw({1, 3, 8}, 1), y = draw({1, 3, 8}, 2);
  CHECK(at::equal(gated_add(x, at::zeros({1, 1, 8}), y), x));
  CHECK(at::equal(gated_add(x, at::ones({1, 1, 8}), y), x + y));
}

TEST_CASE("rotary tables: angles per axis, and dot products that see only distances") {
  const at::Tensor ids = at::tensor({0, 0, 0, 3, 5, 7}, at::kLong).view({2, 3});
  const RotaryTable table = rotary_table(ids, {16, 56, 56}, 10000.0);
  REQUIRE((table.cos.sizes() == at::IntArrayRef{2, 64}));
  CHECK(at::equal(table.cos[0], at::ones({64})));
  CHECK(at::equal(table.sin[0], at::zeros({64})));
  // Each axis begins with frequency 1: columns 0, 8 and 36.
  CHECK(table.cos[1][0].item<double>() == doctest::Approx(std::cos(3.0)));
  CHECK(table.sin[1][8].item<double>() == doctest::Approx(std::sin(5.0)));
  CHECK(table.sin[1][36].item<double>() == doctest::Approx(std::sin(7.0)));
  CHECK(table.sin[1][1].item<double>() == doctest::Approx(std::sin(3.0 * std::pow(10000.0, -2.0 / 16.0))));
  CHECK_THROWS_AS(rotary_table(ids, {64, 64}, 10000.0), std::logic_error);
}

TEST_CASE("split, normalise, rotate: rows go where they belong and v is untouched") {
  constexpr std::int64_t kHeads = 2, kDim = 128;
  const at::Tensor packed = draw({1, 3, 3 * kHeads * kDim}, 4);
  const at::Tensor q_norm = draw({kDim}, 5), k_norm = draw({kDim}, 6);
  const at::Tensor ids = at::arange(15, at::kLong).view({5, 3});
  const RotaryTable rotary = rotary_table(ids, {16, 56, 56}, 10000.0);
  Qkv out = empty_qkv(packed, 5, kHeads, kDim);
  for (at::Tensor* t : {&out.q, &out.k, &out.v}) t->zero_();
  split_norm_rotate(packed, q_norm, k_norm, rotary, 2, out);

  CHECK(out.q.narrow(2, 0, 2).abs().max().item<float>() == 0.0f);
  const at::Tensor parts = packed.view({1, 3, 3, kHeads, kDim});
  CHECK(at::equal(out.v.narrow(2, 2, 3), parts.select(2, 2).transpose(1, 2)));

  // One value by hand: token 1 (row 3), head 1, pair 10 of k, which the second axis turns.
  const at::Tensor k = parts[0][1][1][1].to(at::kDouble);
  const at::Tensor normal = k / (k.square().mean() + 1e-6).sqrt() * k_norm;
  const double angle = ids[3][1].item<double>() * std::pow(10000.0, -2.0 * (10 - 8) / 56.0);
  const double even = normal[20].item<double>(), odd = normal[21].item<double>();
  CHECK(out.k[0][1][3][20].item<double>() ==
        doctest::Approx(even * std::cos(angle) - odd * std::sin(angle)).epsilon(1e-4));
  CHECK(out.k[0][1][3][21].item<double>() ==
        doctest::Approx(even * std::sin(angle) + odd * std::cos(angle)).epsilon(1e-4));
}

TEST_CASE("gelu_tanh and concat_gelu, by the formula") {
  const at::Tensor a = draw({1, 2, 4}, 7), b = draw({1, 2, 6}, 8);
  const at::Tensor wide = b.to(at::kDouble);
  const at::Tensor gelu = 0.5 * wide * (1 + (std::sqrt(2 / M_PI) * (wide + 0.044715 * wide.pow(3))).tanh());
  CHECK(relative_l2(elementwise::gelu_tanh(b), gelu) < 1e-6);
  const at::Tensor both = concat_gelu(a, b);
  CHECK(at::equal(both.narrow(-1, 0, 4), a));
  CHECK(at::equal(both.narrow(-1, 4, 6), elementwise::gelu_tanh(b)));
}

TEST_CASE("the timestep's sinusoid: cosines first, times 1000") {
  const at::Tensor e = sinusoidal_embedding({250.0}, 256);
  REQUIRE((e.sizes() == at::IntArrayRef{1, 256}));
  CHECK(e[0][0].item<double>() == doctest::Approx(std::cos(250.0)).epsilon(1e-4));
  CHECK(e[0][128].item<double>() == doctest::Approx(std::sin(250.0)).epsilon(1e-4));
  CHECK(e[0][192].item<double>() == doctest::Approx(std::sin(250.0 * std::pow(10000.0, -0.5))).epsilon(1e-4));
}

TEST_CASE("a linear layer's 8-bit weight and scale give the product of the widened weight") {
  const at::Tensor x = draw({1, 3, 32}, 9), bias = draw({16}, 10);
  const at::Tensor weight = draw({16, 32}, 11).to(at::kFloat8_e4m3fn);
  const at::Tensor expected = at::linear(x, weight.to(at::kFloat) * 0.37, bias);
  const LocalOps ops;
  Weight scaled(weight);
  scaled.packing = &element_packing();
  scaled.scale = 0.37;
  CHECK(relative_l2(ops.linear_col(x, {scaled, bias}), expected) < 1e-6);
  CHECK(relative_l2(ops.linear_row(x, {scaled, {}}), expected - bias) < 1e-6);
  CHECK(relative_l2(ops.linear_col_gelu(x, {scaled, bias}), elementwise::gelu_tanh(expected)) < 1e-6);
  // To the bit: the fp8 numbers are widened as they are, and the scale multiplies the product.
  const at::Tensor product = at::addmm(bias, x.view({3, 32}), weight.to(at::kFloat).t(), 1, 0.37);
  CHECK(at::equal(ops.linear_col(x, {scaled, bias}), product.view({1, 3, 16})));
  CHECK(at::equal(ops.linear_col(x, {weight.to(at::kFloat), bias}), at::linear(x, weight.to(at::kFloat), bias)));
}

TEST_CASE("a linear layer's 8-bit weight with one scale per row is scaled, rounded once, then multiplied") {
  const at::Tensor x = draw({1, 3, 32}, 9).to(at::kBFloat16), bias = draw({16}, 10).to(at::kBFloat16);
  Weight weight(draw({16, 32}, 11).to(at::kFloat8_e4m3fn));
  weight.packing = &element_packing();
  weight.scales = {draw({16, 1}, 12)};
  const at::Tensor values = (weight.payload.to(at::kFloat) * weight.scales[0]).to(at::kBFloat16);
  const at::Tensor product = at::addmm(bias, x.view({3, 32}), values.t());
  CHECK(at::equal(LocalOps().linear_col(x, {weight, bias}), product.view({1, 3, 16})));
}

TEST_CASE("attention: its scale, its bias and its causal mask") {
  const at::Tensor q = draw({1, 2, 4, 8}, 12), k = draw({1, 2, 4, 8}, 13), v = draw({1, 2, 4, 8}, 14);
  const LocalOps ops;
  const auto plain = [&](double scale, const at::Tensor& bias) {
    return at::matmul((at::matmul(q, k.transpose(-2, -1)) * scale + bias).softmax(-1), v);
  };
  const at::Tensor none = at::zeros({1, 1, 4, 4}), bias = draw({1, 2, 4, 4}, 15);
  const at::Tensor later = at::full({4, 4}, -1e9).triu(1).view({1, 1, 4, 4});
  CHECK(relative_l2(ops.attention(q, k, v), plain(1 / std::sqrt(8.0), none)) < 1e-6);
  CHECK(relative_l2(ops.attention(q, k, v, {1.0, false, bias}), plain(1.0, bias)) < 1e-6);
  CHECK(relative_l2(ops.attention(q, k, v, {0.0, true, {}}), plain(1 / std::sqrt(8.0), later)) < 1e-6);
}

TEST_SUITE_END();
