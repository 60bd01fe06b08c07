#include "core/elementwise.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

namespace mgpu::elementwise {
namespace {

// A multiple of every vector's width, and of few enough elements that LibTorch does not share a block.
constexpr std::int64_t kBlock = std::int64_t{1} << 14;

/// x as rows that an operation may be given in groups: equal parts of memory where it is dense, else its own.
at::Tensor rows_of(const at::Tensor& x) {
  if (x.is_non_overlapping_and_dense()) return x.as_strided({1, x.numel()}, {x.numel(), 1});
  return x.reshape({-1, x.size(-1)});
}

/// Runs op(out, in) over blocks of `x` and `out`, which has the layout of x or is contiguous; each block in one thread.
template <class Op>
void by_blocks(const at::Tensor& x, const at::Tensor& out, const Op& op) {
  if (!x.is_cpu() || x.numel() <= kBlock) {
    op(out, x);
    return;
  }
  const at::Tensor from = rows_of(x), to = x.is_non_overlapping_and_dense() ? rows_of(out) : out.view(from.sizes());
  const bool flat = from.size(0) == 1;
  const std::int64_t all = flat ? from.size(1) : from.size(0);
  const std::int64_t step = flat ? kBlock : std::max<std::int64_t>(1, kBlock / from.size(1));
  at::parallel_for(0, (all + step - 1) / step, 1, [&](std::int64_t first, std::int64_t last) {
    const at::AutoDispatchBelowADInplaceOrView guard;  // what the caller's thread has set does not hold in this one
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = block * step, count = std::min(step, all - begin);
      op(to.narrow(flat ? 1 : 0, begin, count), from.narrow(flat ? 1 : 0, begin, count));
    }
  });
}

template <class Op>
at::Tensor by_blocks(const at::Tensor& x, const Op& op) {
  const at::Tensor out = x.is_non_overlapping_and_dense() ? at::empty_like(x) : at::empty(x.sizes(), x.options());
  by_blocks(x, out, op);
  return out;
}

constexpr auto silu_of = [](at::Tensor out, const at::Tensor& x) { at::silu_out(out, x); };

}  // namespace

at::Tensor silu(const at::Tensor& x) {
  return by_blocks(x, silu_of);
}

void silu_(const at::Tensor& x) {
  by_blocks(x, x, silu_of);
}

at::Tensor sigmoid(const at::Tensor& x) {
  return by_blocks(x, [](at::Tensor out, const at::Tensor& in) { at::sigmoid_out(out, in); });
}

at::Tensor gelu(const at::Tensor& x) {
  return by_blocks(x, [](at::Tensor out, const at::Tensor& in) { at::gelu_out(out, in, "none"); });
}

at::Tensor gelu_tanh(const at::Tensor& x) {
  return by_blocks(x, [](at::Tensor out, const at::Tensor& in) { at::gelu_out(out, in, "tanh"); });
}

}  // namespace mgpu::elementwise
