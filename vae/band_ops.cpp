#include "vae/band_ops.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/stop_point.h"

namespace mgpu {
namespace {

constexpr double kEps = 1e-6;

at::Tensor narrow(const at::Tensor& rows, const RowRange& range) {
  return rows.narrow(0, range.first, range.size());
}

/// Without bias. x [R, W, C] -> [R', W', C'].
at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, int stride, int padding_rows, int padding_columns) {
  const at::Tensor image = x.permute({2, 0, 1}).unsqueeze(0);  // channels last in memory: nothing moves
  const at::Tensor out = at::conv2d(image, weight, {}, stride, {padding_rows, padding_columns});
  return out.squeeze(0).permute({1, 2, 0}).contiguous();
}

at::Tensor project(const at::Tensor& tokens, const Linear& w) {
  return at::linear(tokens, w.weight.plain(), w.bias);
}

/// Room for an image; sums are wanted where 32 groups can be normalised.
ImageRows empty_rows(const at::Tensor& like, std::int64_t rows, std::int64_t width, std::int64_t channels) {
  ImageRows out;
  out.values = at::empty({rows, width, channels}, like.options());
  if (channels % 32 == 0) out.sums = empty_sums(out.values);
  return out;
}

at::Tensor narrow_sums(const ImageRows& x, const RowRange& range) {
  return x.sums.defined() ? narrow(x.sums, range) : x.sums;
}

}  // namespace

at::Tensor measured_affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) {
  return group_affine(sums, static_cast<double>(sums.size(0) * width), norm, kEps);
}

at::Tensor MeasuredStatistics::affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) {
  return measured_affine(sums, width, norm);
}

BandOps::BandOps(const Bands& bands, Statistics& statistics)
    : bands_(bands), units_(bands.all()), statistics_(statistics) {}

BandOps::BandOps(const Bands& bands, const RowRange& units, Statistics& statistics, Exchange& exchange,
                 std::size_t rank)
    : bands_(bands),
      units_(units),
      statistics_(statistics),
      exchange_(exchange.ranks() > 1 ? &exchange : nullptr),
      rank_(rank) {}

std::vector<RowRange> BandOps::strips(std::int64_t width, std::int64_t channels) const {
  std::vector<RowRange> out = bands_.strips(units_, width, channels);
  const std::int64_t start = bands_.rows(units_, width).first;
  for (RowRange& strip : out) strip = {strip.first - start, strip.last - start};
  return out;
}

BandOps::Surroundings BandOps::look_around(const ImageRows& x, const Norm* norm) const {
  Surroundings out;
  at::Tensor sums = x.sums;
  if (exchange_) {
    const auto edge = [&](std::int64_t row) { return x.values.narrow(0, row, 1).clone(); };
    const Exchange::Round round =
        exchange_->show(rank_, {edge(0), edge(x.values.size(0) - 1), norm ? x.sums : at::Tensor()});
    if (rank_ > 0) out.above = round.take(rank_ - 1, 1, x.values);
    if (rank_ + 1 < exchange_->ranks()) out.below = round.take(rank_ + 1, 0, x.values);
    if (norm) {
      std::vector<at::Tensor> all;
      for (std::size_t rank = 0; rank < exchange_->ranks(); ++rank) all.push_back(round.take(rank, 2, x.values));
      sums = at::cat(all);
    }
  }
  if (norm) out.affine = statistics_.affine(sums, x.width(), *norm);
  return out;
}

at::Tensor BandOps::with_margin(const at::Tensor& x, const RowRange& strip, const Surroundings& around,
                                const at::Tensor& above) const {
  stop_point(x.device());
  at::Tensor out = at::empty({strip.size() + 2, x.size(1), x.size(2)}, x.options());
  const auto fill = [&](const at::Tensor& from, std::int64_t first) {
    at::Tensor to = out.narrow(0, first, from.size(0));
    if (around.affine.defined())
      normalise_rows(from, around.affine, /*with_silu=*/true, to);
    else
      to.copy_(from);
  };
  const auto fill_edge = [&](const at::Tensor& from, std::int64_t row) {
    if (from.defined())
      fill(from, row);
    else
      out.narrow(0, row, 1).zero_();
  };
  const bool has_above = strip.first > 0 && !above.defined(), has_below = strip.last < x.size(0);
  const RowRange inside{strip.first - (has_above ? 1 : 0), strip.last + (has_below ? 1 : 0)};
  fill(narrow(x, inside), has_above ? 0 : 1);
  if (!has_above) fill_edge(above.defined() ? above : around.above, 0);
  if (!has_below) fill_edge(around.below, strip.size() + 1);
  return out;
}

ImageRows BandOps::convolved(const ImageRows& x, const Surroundings& around, const Conv& w) const {
  const std::int64_t channels = w.weight.size(0);
  ImageRows out = empty_rows(x.values, x.values.size(0), x.width(), channels);
  for (const RowRange& strip : strips(x.width(), std::max(x.channels(), channels))) {
    const at::Tensor product = convolve(with_margin(x.values, strip, around, {}), w.weight, 1, 0, 1);
    finish_rows(product, w.bias, {}, narrow(out.values, strip), narrow_sums(out, strip));
  }
  return out;
}

ImageRows BandOps::conv3x3(const ImageRows& x, const Conv& w) const {
  return convolved(x, look_around(x, nullptr), w);
}

ImageRows BandOps::norm_silu_conv3x3(const ImageRows& x, const Norm& norm, const Conv& w) const {
  return convolved(x, look_around(x, &norm), w);
}

ImageRows BandOps::conv1x1(const ImageRows& x, const Conv& w) const {
  const std::int64_t channels = w.weight.size(0);
  ImageRows out = empty_rows(x.values, x.values.size(0), x.width(), channels);
  for (const RowRange& strip : strips(x.width(), std::max(x.channels(), channels))) {
    stop_point(x.values.device());
    finish_rows(convolve(narrow(x.values, strip), w.weight, 1, 0, 0), w.bias, {}, narrow(out.values, strip),
                narrow_sums(out, strip));
  }
  return out;
}

void BandOps::norm_silu_conv3x3_add(ImageRows& inner, const Norm& norm, const Conv& w, const ImageRows& x,
                                    const Conv& shortcut) const {
  const Surroundings around = look_around(inner, &norm);
  inner.sums = at::empty_like(inner.sums);  // the others may still read those before
  at::Tensor above;                         // the row above the next strip, as it was
  for (const RowRange& strip : strips(inner.width(), std::max(inner.channels(), x.channels()))) {
    const at::Tensor normal = with_margin(inner.values, strip, around, above);
    above = inner.values.narrow(0, strip.last - 1, 1).clone();
    at::Tensor residual = narrow(x.values, strip);
    if (shortcut.weight.defined()) residual = convolve(residual, shortcut.weight, 1, 0, 0).add_(shortcut.bias);
    finish_rows(convolve(normal, w.weight, 1, 0, 1), w.bias, residual, narrow(inner.values, strip),
                narrow_sums(inner, strip));
  }
}

ImageRows BandOps::upsample_conv3x3(const ImageRows& x, const Conv& phases) const {
  const Surroundings around = look_around(x, nullptr);
  const std::int64_t channels = phases.weight.size(0) / 4;
  ImageRows out = empty_rows(x.values, 2 * x.values.size(0), 2 * x.width(), channels);
  for (const RowRange& strip : strips(x.width(), 4 * channels)) {
    const at::Tensor product = convolve(with_margin(x.values, strip, around, {}), phases.weight, 1, 0, 1);
    const RowRange twice{2 * strip.first, 2 * strip.last};
    finish_upsampled_rows(product, phases.bias, narrow(out.values, twice), narrow_sums(out, twice));
  }
  return out;
}

ImageRows BandOps::downsample_conv3x3(const ImageRows& x, const Conv& w) const {
  const Surroundings around = look_around(x, nullptr);
  const std::int64_t channels = w.weight.size(0);
  ImageRows out = empty_rows(x.values, x.values.size(0) / 2, x.width() / 2, channels);
  for (const RowRange& strip : strips(out.width(), 4 * x.channels())) {  // of the result's rows
    const at::Tensor rows = with_margin(x.values, {2 * strip.first, 2 * strip.last}, around, {});
    // Without the row above; a column of zeros on the right.
    const at::Tensor padded = at::constant_pad_nd(rows.narrow(0, 1, rows.size(0) - 1), {0, 0, 0, 1});
    finish_rows(convolve(padded, w.weight, 2, 0, 0), w.bias, {}, narrow(out.values, strip), narrow_sums(out, strip));
  }
  return out;
}

RowRange BandOps::pixels(const RowRange& units) const {
  const std::int64_t width = bands_.latent_width();
  const RowRange rows = bands_.rows(units, width);
  return {rows.first * width, rows.last * width};
}

void BandOps::gather_pixels(const at::Tensor& k, const at::Tensor& v) const {
  if (!exchange_) return;
  const RowRange mine = pixels(units_);
  const Exchange::Round round = exchange_->show(rank_, {narrow(k, mine), narrow(v, mine)});
  std::int64_t next = 0;
  for (std::size_t rank = 0; rank < exchange_->ranks(); ++rank) {
    const at::Tensor its_k = round.take(rank, 0, k), its_v = round.take(rank, 1, v);
    const RowRange range{next, next + its_k.size(0)};
    next = range.last;
    if (rank == rank_) continue;
    narrow(k, range).copy_(its_k);
    narrow(v, range).copy_(its_v);
  }
}

void BandOps::attention_add(ImageRows& x, const Attention& attention) const {
  const at::Tensor affine = look_around(x, &attention.norm).affine;
  const std::int64_t channels = x.channels(), width = x.width();
  const RowRange mine = pixels(units_);
  const at::Tensor tokens = x.values.view({mine.size(), 1, channels});
  const auto normal = [&](const RowRange& range) {
    at::Tensor out = at::empty({range.size(), 1, channels}, x.values.options());
    normalise_rows(narrow(tokens, range), affine, /*with_silu=*/false, out);
    return out.view({range.size(), channels});
  };
  const RowRange all = pixels(bands_.all());
  const at::Tensor k = at::empty({all.size(), channels}, x.values.options()), v = at::empty_like(k);
  for (const RowRange& strip : strips(width, channels)) {
    const RowRange range{strip.first * width, strip.last * width},
        to{mine.first + range.first, mine.first + range.last};
    const at::Tensor from = normal(range);
    narrow(k, to).copy_(project(from, attention.k));
    narrow(v, to).copy_(project(from, attention.v));
  }
  gather_pixels(k, v);
  const at::Tensor mixed = at::empty({mine.size(), channels}, x.values.options());
  for (RowRange piece : bands_.query_pieces(units_)) {
    stop_point(x.values.device());
    piece = {piece.first - mine.first, piece.last - mine.first};
    narrow(mixed, piece).copy_(attend(project(normal(piece), attention.q), k, v));
  }
  x.sums = at::empty_like(x.sums);  // the others may still read those before
  for (const RowRange& strip : strips(width, channels)) {
    const at::Tensor product =
        at::matmul(narrow(mixed.view(x.values.sizes()), strip), attention.out.weight.plain().t());
    const at::Tensor rows = narrow(x.values, strip);
    finish_rows(product, attention.out.bias, rows, rows, narrow_sums(x, strip));
  }
}

}  // namespace mgpu
