#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/nn.h"
#include "tests/testing.h"

using namespace mgpu;

TEST_SUITE_BEGIN("kernels");

namespace {

/// How far one rounding to the type may move a value, relative; a kernel that rounds once stays within it.
double rounding(at::ScalarType dtype) {
  return dtype == at::kFloat ? 1e-6 : dtype == at::kHalf ? 4e-4 : 3e-3;
}

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};

at::Tensor draw(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::randn(shape, at::kDouble).to(dtype).to(at::kCUDA);
}

/// The same operation on the CPU in fp64: the CPU path of core/nn.cpp on widened operands.
at::Tensor wide(const at::Tensor& x) {
  return x.to(at::kCPU, at::kDouble);
}

}  // namespace

TEST_CASE("layer_norm_modulate rounds once") {
  for (const at::ScalarType dtype : kTypes) {
    for (const std::int64_t channels : {64, 384, 3072, 16384}) {
      CAPTURE(c10::toString(dtype));
      CAPTURE(channels);
      const at::Tensor x = draw({1, 37, channels}, dtype) + 3, modulation = draw({1, 1, 2 * channels}, dtype);
      const at::Tensor shift = modulation.narrow(-1, 0, channels), scale = modulation.narrow(-1, channels, channels);
      const at::Tensor y = layer_norm_modulate(x, shift, scale);
      CHECK(relative_l2(y.cpu(), layer_norm_modulate(wide(x), wide(shift), wide(scale))) <= rounding(dtype));
      CHECK(at::equal(y, layer_norm_modulate(x, shift, scale)));
    }
  }
}

TEST_CASE("gated_add rounds once") {
  for (const at::ScalarType dtype : kTypes) {
    const at::Tensor x = draw({1, 33, 3072}, dtype), y = draw({1, 33, 3072}, dtype), gate = draw({1, 1, 3072}, dtype);
    CHECK(relative_l2(gated_add(x, gate, y).cpu(), gated_add(wide(x), wide(gate), wide(y))) <= rounding(dtype));
  }
}

TEST_CASE("concat_gelu takes rows that lie apart") {
  for (const at::ScalarType dtype : kTypes) {
    const at::Tensor packed = draw({1, 19, 7 * 128}, dtype), a = draw({1, 19, 128}, dtype);
    const at::Tensor b = packed.narrow(-1, 3 * 128, 4 * 128);
    CHECK(relative_l2(concat_gelu(a, b).cpu(), concat_gelu(wide(a), wide(b))) <= rounding(dtype));
  }
}

TEST_CASE("split_norm_rotate writes its rows and no others") {
  constexpr std::int64_t kHeads = 3, kDim = 128, kText = 5, kTokens = 29;
  const at::Tensor ids = at::randint(0, 60, {kTokens, 3}, at::kLong);
  const RotaryTable cpu_table = rotary_table(ids, {16, 56, 56}, 10000.0);
  const RotaryTable table{cpu_table.cos.to(at::kCUDA), cpu_table.sin.to(at::kCUDA)};
  for (const at::ScalarType dtype : kTypes) {
    CAPTURE(c10::toString(dtype));
    const at::Tensor packed = draw({1, kTokens - kText, 7 * kHeads * kDim}, dtype).narrow(-1, 0, 3 * kHeads * kDim);
    const at::Tensor q_norm = draw({kDim}, dtype), k_norm = draw({kDim}, dtype);
    Qkv out = empty_qkv(packed, kTokens, kHeads, kDim);
    for (const at::Tensor& t : {out.q, out.k, out.v}) t.fill_(7);
    split_norm_rotate(packed, q_norm, k_norm, table, kText, out);

    Qkv expected = empty_qkv(wide(packed), kTokens, kHeads, kDim);
    for (const at::Tensor& t : {expected.q, expected.k, expected.v}) t.fill_(7);
    split_norm_rotate(wide(packed), wide(q_norm), wide(k_norm), cpu_table, kText, expected);
    CHECK(relative_l2(out.q.cpu(), expected.q) <= rounding(dtype));
    CHECK(relative_l2(out.k.cpu(), expected.k) <= rounding(dtype));
    CHECK(at::equal(out.v.cpu().to(at::kDouble), expected.v));
    CHECK((out.q.narrow(2, 0, kText) == 7).all().item<bool>());
  }
}

TEST_SUITE_END();
