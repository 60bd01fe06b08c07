#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "core/bands.h"
#include "core/exchange.h"
#include "core/image_nn.h"
#include "core/weights.h"

namespace mgpu {

/// A device's rows of an image on its way through a coder, channels last.
struct ImageRows {
  at::Tensor values;  ///< [rows, width, C]
  at::Tensor sums;    ///< as empty_sums(values), for the normalisation that comes next; undefined where none does

  std::int64_t width() const { return values.size(1); }
  std::int64_t channels() const { return values.size(2); }
};

/// Where a group normalisation's scale and shift come from.
class Statistics {
 public:
  virtual ~Statistics() = default;
  /// [2, C], from the sums of all rows of an image of that width.
  virtual at::Tensor affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) = 0;
};

/// Of rows [rows, segments, 32, 2] whose image is so wide.
at::Tensor measured_affine(const at::Tensor& sums, std::int64_t width, const Norm& norm);

/// From all of the image: the definition.
class MeasuredStatistics final : public Statistics {
 public:
  at::Tensor affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) override;
};

/// What coders are made of, on one device's rows of an image. Neighbours' edge rows, sums and attention's keys and
/// values come through the exchange. Everything is computed strip by strip (Bands), so that beside the image no more
/// than a strip is needed and a strip is near a cache between a normalisation and the convolution behind it. With
/// several devices every one calls the same functions in the same order.
class BandOps {
 public:
  /// The whole image, on one device.
  explicit BandOps(const Bands& bands, Statistics& statistics);
  /// Some units of it. The exchange outlives this.
  BandOps(const Bands& bands, const RowRange& units, Statistics& statistics, Exchange& exchange, std::size_t rank);

  const Bands& bands() const { return bands_; }
  /// This device's.
  const RowRange& units() const { return units_; }

  /// Zero padding of 1.
  ImageRows conv3x3(const ImageRows& x, const Conv& w) const;
  ImageRows conv1x1(const ImageRows& x, const Conv& w) const;
  /// conv3x3(silu(norm(x))).
  ImageRows norm_silu_conv3x3(const ImageRows& x, const Norm& norm, const Conv& w) const;
  /// inner = conv3x3(silu(norm(inner))) + x, or + conv1x1(x) where there is a shortcut; in the place of inner.
  void norm_silu_conv3x3_add(ImageRows& inner, const Norm& norm, const Conv& w, const ImageRows& x,
                             const Conv& shortcut) const;
  /// Twice the size by repeating pixels, then a 3x3 convolution, given as its phase_weights().
  ImageRows upsample_conv3x3(const ImageRows& x, const Conv& phases) const;
  /// Half the size: a 3x3 convolution of stride 2, padded by one row below and one column on the right. x has an even
  /// number of rows and columns.
  ImageRows downsample_conv3x3(const ImageRows& x, const Conv& w) const;

  struct Attention {
    Norm norm;
    Linear q, k, v, out;  ///< [C, C]
  };
  /// x + out(attention(norm(x))), one head over all pixels; in the place of x.
  void attention_add(ImageRows& x, const Attention& attention) const;

 private:
  /// What lies around a device's rows.
  struct Surroundings {
    at::Tensor above, below;  ///< [1, W, C]; undefined at the image's edges
    at::Tensor affine;        ///< of the normalisation; undefined: none
  };
  Surroundings look_around(const ImageRows& x, const Norm* norm) const;
  /// Rows strip.first - 1 .. strip.last of x, through normalisation and SiLU where there is one; zeros beyond the
  /// image. `above`, if defined, is what row strip.first - 1 was before it was written to.
  at::Tensor with_margin(const at::Tensor& x, const RowRange& strip, const Surroundings& around,
                         const at::Tensor& above) const;
  /// Strips of this device where a pixel has so many values, counted from its first row.
  std::vector<RowRange> strips(std::int64_t width, std::int64_t channels) const;
  ImageRows convolved(const ImageRows& x, const Surroundings& around, const Conv& w) const;
  /// All devices' rows of the latent's pixels [pixels, C], of which this device has its own.
  void gather_pixels(const at::Tensor& k, const at::Tensor& v) const;
  RowRange pixels(const RowRange& units) const;

  Bands bands_;
  RowRange units_;
  Statistics& statistics_;
  Exchange* exchange_ = nullptr;
  std::size_t rank_ = 0;
};

}  // namespace mgpu
