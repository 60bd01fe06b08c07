#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "core/packing.h"

namespace mgpu {

/// A weight as a layer keeps it: plain values in the type that is computed in, or packed and widened at use.
struct Weight {
  Weight() = default;
  /// Plain values.
  Weight(at::Tensor values) : payload(std::move(values)) {}  // NOLINT(google-explicit-constructor)

  at::Tensor payload;                ///< the values, or what holds them
  const Packing* packing = nullptr;  ///< null: plain
  double scale = 1.0;                ///< a factor of all values, which a product may apply to its result instead
  std::vector<at::Tensor> scales;    ///< what else the packing needs, in its order, on the payload's device

  bool defined() const { return payload.defined(); }
  /// Whether the payload is the values, in this type.
  bool is_plain(at::ScalarType dtype) const {
    return packing == nullptr && scale == 1.0 && payload.scalar_type() == dtype;
  }
  /// The values of a weight that is known to be plain.
  const at::Tensor& plain() const;
  /// The size of an axis of the values.
  std::int64_t size(std::int64_t axis) const;

  /// The values in `dtype`: scaled in fp32, rounded once. The payload itself when it is that already.
  at::Tensor widened(at::ScalarType dtype) const;
  /// The same without the factor `scale`.
  at::Tensor unscaled(at::ScalarType dtype) const;
  /// Rows first..first+count-1 of the values: views of the same memory.
  Weight rows(std::int64_t first, std::int64_t count) const;
  /// A 1x1 convolution's weight [out, in, 1, 1] as the matrix [out, in]; a matrix as it is.
  Weight as_matrix() const;

  /// The tensors that it reads, for whoever streams them: each may be moved and shown elsewhere.
  std::vector<at::Tensor*> tensors();
};

}  // namespace mgpu
