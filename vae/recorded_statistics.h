#pragma once

#include <cstddef>
#include <vector>

#include "vae/band_ops.h"

namespace mgpu {

/// The scale and shift of every normalisation on the way, in order.
using NormTape = std::vector<at::Tensor>;

/// Measured, and recorded.
class RecordingStatistics final : public Statistics {
 public:
  explicit RecordingStatistics(NormTape& tape) : tape_(tape) {}
  at::Tensor affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) override;

 private:
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
