#include "tests/testing.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <limits>

#include "core/weights.h"

namespace mgpu {

std::string golden(const std::string& name) {
  return std::string(MGPU_GOLDENS) + "/" + name;
}

at::Tensor read(const TensorFile& file, const std::string& name) {
  const TensorInfo* info = file.find(name);
  REQUIRE_MESSAGE(info, file.path(), " has no tensor ", name);
  const auto bytes = file.bytes(*info);
  at::Tensor out = at::empty(info->shape, scalar_type(info->dtype));
  std::copy(bytes.begin(), bytes.end(), static_cast<std::byte*>(out.mutable_data_ptr()));
  return out;
}

double relative_l2(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || !a.isfinite().all().item<bool>()) return std::numeric_limits<double>::infinity();
  const at::Tensor wide = b.to(at::kDouble);
  return ((a.to(at::kDouble) - wide).norm() / wide.norm()).item<double>();
}

}  // namespace mgpu
