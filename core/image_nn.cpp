#include "core/image_nn.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/elementwise.h"
#include "core/error.h"
#include "core/kernels/kernels.h"

namespace mgpu {
namespace {

constexpr std::int64_t kGroups = 32;  // of every autoencoder and UNet of the families we know

/// The sums of one row of `width` pixels.
void sum_row(const float* row, std::int64_t width, std::int64_t channels, double* out) {
  std::vector<double> sum(static_cast<std::size_t>(channels)), square(static_cast<std::size_t>(channels));
  for (std::int64_t column = 0; column < width; ++column, row += channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto i = static_cast<std::size_t>(c);
      const double value = row[c];
      sum[i] += value;
      square[i] += value * value;
    }
  }
  const std::int64_t of_group = channels / kGroups;
  for (std::int64_t c = 0; c < channels; ++c) {
    out[c / of_group * 2] += sum[static_cast<std::size_t>(c)];
    out[c / of_group * 2 + 1] += square[static_cast<std::size_t>(c)];
  }
}

}  // namespace

at::Tensor empty_sums(const at::Tensor& image) {
  const std::int64_t width = image.size(1), segment = image.is_cuda() ? kernels::segment_width(image.size(2)) : width;
  return at::empty({image.size(0), (width + segment - 1) / segment, kGroups, 2},
                   image.options().dtype(image.is_cuda() ? at::kFloat : at::kDouble));
}

void sum_rows(const at::Tensor& image, const at::Tensor& sums) {
  const at::Tensor wide = image.to(at::kFloat);
  const std::int64_t width = image.size(1), channels = image.size(2);
  MGPU_CHECK_EQ(channels % kGroups, 0);
  const float* values = wide.const_data_ptr<float>();
  double* out = sums.zero_().mutable_data_ptr<double>();
  at::parallel_for(0, image.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row)
      sum_row(values + row * width * channels, width, channels, out + row * kGroups * 2);
  });
}

void finish_rows(const at::Tensor& product, const at::Tensor& bias, const at::Tensor& residual, const at::Tensor& out,
                 const at::Tensor& sums) {
  if (out.is_cuda() && out.size(2) % kGroups == 0) {
    kernels::finish_rows(product, bias, residual, out, sums, /*upsampled=*/false);
    return;
  }
  at::Tensor target = out;
  if (residual.defined())
    at::add_out(target, product.add_(bias), residual);
  else
    at::add_out(target, product, bias);
  if (sums.defined()) sum_rows(out, sums);
}

at::Tensor phase_weights(const at::Tensor& weight) {
  // Of a parity, which of the three taps meet the first and which the second of the two pixels.
  const auto taps = [](const at::Tensor& w, std::int64_t dim, int parity) {
    const at::Tensor first = w.narrow(dim, 0, 1), middle = w.narrow(dim, 1, 1), last = w.narrow(dim, 2, 1);
    return parity == 0 ? at::cat({first, middle + last}, dim) : at::cat({first + middle, last}, dim);
  };
  const at::Tensor wide = weight.to(at::kFloat);
  std::vector<at::Tensor> phases;
  for (const int row : {0, 1})
    for (const int column : {0, 1}) phases.push_back(taps(taps(wide, 2, row), 3, column));
  return at::cat(phases, 0).to(weight.scalar_type());
}

void finish_upsampled_rows(const at::Tensor& product, const at::Tensor& bias, const at::Tensor& out,
                           const at::Tensor& sums) {
  if (out.is_cuda()) {
    kernels::finish_rows(product, bias, {}, out, sums, /*upsampled=*/true);
    return;
  }
  const std::int64_t rows = out.size(0) / 2, width = out.size(1) / 2, channels = out.size(2);
  const at::Tensor pixels = out.view({rows, 2, width, 2, channels});
  for (const std::int64_t row : {0, 1}) {
    for (const std::int64_t column : {0, 1}) {
      at::Tensor phase = pixels.select(3, column).select(1, row);
      const at::Tensor from = product.narrow(0, row, rows).narrow(1, column, width);
      at::add_out(phase, from.narrow(2, (2 * row + column) * channels, channels), bias);
    }
  }
  if (sums.defined()) sum_rows(out, sums);
}

at::Tensor group_affine(const at::Tensor& sums, double positions, const Norm& norm, double eps) {
  if (sums.is_cuda()) return kernels::group_affine(sums, positions, norm.weight, norm.bias, eps);
  const std::int64_t channels = norm.weight.size(0), of_group = channels / kGroups;
  const at::Tensor totals = sums.flatten(0, 1).sum(0) / (positions * static_cast<double>(of_group));
  const at::Tensor mean = totals.select(1, 0), variance = (totals.select(1, 1) - mean.square()).clamp_min(0);
  const at::Tensor scale = (variance + eps).rsqrt().repeat_interleave(of_group) * norm.weight.to(at::kDouble);
  const at::Tensor shift = norm.bias.to(at::kDouble) - mean.repeat_interleave(of_group) * scale;
  return at::stack({scale, shift}).to(at::kFloat);
}

void normalise_rows(const at::Tensor& x, const at::Tensor& affine, bool with_silu, const at::Tensor& out) {
  if (x.is_cuda()) {
    kernels::normalise_rows(x, affine, with_silu, out);
    return;
  }
  at::Tensor target = out;
  if (x.scalar_type() == at::kFloat) {
    at::addcmul_out(target, affine.select(0, 1), x, affine.select(0, 0));
    if (with_silu) elementwise::silu_(target);
    return;
  }
  const at::Tensor wide = at::addcmul(affine.select(0, 1), x.to(at::kFloat), affine.select(0, 0));
  target.copy_(with_silu ? elementwise::silu(wide) : wide);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  if (!q.is_cuda()) {
    const auto head = [](const at::Tensor& x) { return x.unsqueeze(0).unsqueeze(0); };
    return at::scaled_dot_product_attention(head(q), head(k), head(v)).squeeze(0).squeeze(0);
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(1)));
  const bool is_wide = q.scalar_type() == at::kFloat;
  const at::Tensor scores = is_wide ? at::mm(q, k.t()) : at::mm(q, k.t(), at::kFloat);
  return at::mm(kernels::softmax_rows(scores, scale, v.scalar_type()), v);
}

}  // namespace mgpu
