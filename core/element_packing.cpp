#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/packing.h"
#include "core/weight.h"

namespace mgpu {
namespace {

// Rows are scaled in pieces of so many values, so that their fp32 copies take little memory beside the result.
constexpr std::int64_t kValuesAtOnce = std::int64_t{4} << 20;

class ElementPacking final : public Packing {
 public:
  std::string_view name() const override { return "scaled elements"; }

  std::vector<std::int64_t> shape(const Weight& weight) const override { return weight.payload.sizes().vec(); }

  at::Tensor unpacked(const Weight& weight, at::ScalarType dtype) const override {
    const at::Tensor& payload = weight.payload;
    if (weight.scales.empty()) return payload.to(dtype);
    std::vector<std::int64_t> one_per_row(static_cast<std::size_t>(payload.dim()), 1);
    one_per_row.front() = payload.size(0);
    const at::Tensor scales = weight.scales.front().to(at::kFloat).view(one_per_row);
    at::Tensor out = at::empty_like(payload, payload.options().dtype(dtype));
    const std::int64_t rows = payload.size(0), values = payload.numel() / std::max<std::int64_t>(rows, 1);
    const std::int64_t step = std::max<std::int64_t>(kValuesAtOnce / std::max<std::int64_t>(values, 1), 1);
    for (std::int64_t first = 0; first < rows; first += step) {
      const std::int64_t count = std::min(step, rows - first);
      out.narrow(0, first, count)
          .copy_(payload.narrow(0, first, count).to(at::kFloat) * scales.narrow(0, first, count));
    }
    return out;
  }

  Weight rows(const Weight& weight, std::int64_t first, std::int64_t count) const override {
    Weight out = weight;
    for (at::Tensor* tensor : out.tensors()) *tensor = tensor->narrow(0, first, count);
    return out;
  }
};

}  // namespace

std::vector<std::int64_t> Packing::byte_shape(const TensorInfo&) const {
  MGPU_CHECK(false, "no file's reader names the packing {}", name());
}

const Packing& element_packing() {
  static const ElementPacking packing;
  return packing;
}

}  // namespace mgpu
