#include "vae/sampled_statistics.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace mgpu {

at::Tensor SampledStatistics::affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) {
  // A convolution lies behind every normalisation, and another where the image has been enlarged.
  ++reach_;
  if (width == 2 * width_) reach_ = 2 * reach_ + 1;
  width_ = width;
  const std::int64_t rows = sums.size(0) / windows_, left_out = windows_ == 1 ? 0 : reach_;
  MGPU_CHECK(rows * windows_ == sums.size(0) && rows > 2 * left_out, "{} windows of {} rows, reached {}", windows_,
             rows, reach_);
  const at::Tensor windows = sums.unflatten(0, {windows_, rows}).narrow(1, left_out, rows - 2 * left_out);
  tape_.push_back(measured_affine(windows.flatten(0, 1).contiguous(), width, norm));
  return tape_.back();
}

at::Tensor RecordedStatistics::affine(const at::Tensor& /*sums*/, std::int64_t /*width*/, const Norm& /*norm*/) {
  MGPU_CHECK(next_ < tape_.size(), "normalisation {} was not recorded", next_);
  return tape_[next_++];
}

}  // namespace mgpu
