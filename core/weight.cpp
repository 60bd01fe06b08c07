#include "core/weight.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace mgpu {

const at::Tensor& Weight::plain() const {
  MGPU_CHECK(packing == nullptr && scale == 1.0, "a weight packed as {} is read as if it were plain",
             packing ? packing->name() : "scaled values");
  return payload;
}

std::int64_t Weight::size(std::int64_t axis) const {
  return packing ? packing->shape(*this).at(static_cast<std::size_t>(axis)) : payload.size(axis);
}

at::Tensor Weight::widened(at::ScalarType dtype) const {
  return scale == 1.0 ? unscaled(dtype) : (unscaled(at::kFloat) * scale).to(dtype);
}

at::Tensor Weight::unscaled(at::ScalarType dtype) const {
  return packing ? packing->unpacked(*this, dtype) : payload.to(dtype);
}

Weight Weight::rows(std::int64_t first, std::int64_t count) const {
  if (packing) return packing->rows(*this, first, count);
  Weight out = *this;
  out.payload = payload.narrow(0, first, count);
  return out;
}

Weight Weight::as_matrix() const {
  Weight out = *this;
  if (payload.dim() > 2) out.payload = payload.flatten(1);
  return out;
}

std::vector<at::Tensor*> Weight::tensors() {
  std::vector<at::Tensor*> out;
  if (payload.defined()) out.push_back(&payload);
  for (at::Tensor& scale_tensor : scales) out.push_back(&scale_tensor);
  return out;
}

}  // namespace mgpu
