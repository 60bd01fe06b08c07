#pragma once

#include <cstdint>
#include <vector>

#include "vae/band_ops.h"

namespace mgpu {

/// The scale and shift of every normalisation on the way, in order.
using NormTape = std::vector<at::Tensor>;

/// From windows of an image that were put below each other: rows which the cuts between windows have reached do not
/// count. One window has no cuts, and all of its rows count. Records what it gives.
class SampledStatistics final : public Statistics {
 public:
  /// So many, `width` wide at first.
  SampledStatistics(std::int64_t windows, std::int64_t width, NormTape& tape)
      : windows_(windows), width_(width), tape_(tape) {}
  at::Tensor affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) override;

 private:
  std::int64_t windows_, width_;
  std::int64_t reach_ = -1;  ///< of the cuts at the normalisation before: rows of convolutions since they were made
  NormTape& tape_;
};

/// What was recorded.
class RecordedStatistics final : public Statistics {
 public:
  explicit RecordedStatistics(const NormTape& tape) : tape_(tape) {}
  at::Tensor affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) override;

 private:
  const NormTape& tape_;
  std::size_t next_ = 0;
};

}  // namespace mgpu
