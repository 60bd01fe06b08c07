#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>

#include "core/tensor_file.h"

namespace mgpu {

/// A linear layer's tensors: y = x @ (weight * scale)^T + bias.
struct Linear {
  at::Tensor weight;   ///< [out, in], in the compute type, or 8-bit and widened at use
  at::Tensor bias;     ///< [out] or undefined
  double scale = 1.0;  ///< of an 8-bit weight
};

/// A 2-d convolution's tensors.
struct Conv {
  at::Tensor weight;  ///< [out, in, kh, kw]
  at::Tensor bias;    ///< [out]
};

/// Scale and shift of a normalisation; `bias` may be undefined.
struct Norm {
  at::Tensor weight;  ///< [channels]
  at::Tensor bias;    ///< [channels] or undefined
};

/// What a model reads its weights through: one file, the part of it under `prefix`, delivered on `device` in `dtype`.
/// Wider weights are narrowed at load; 8-bit ones of linear layers stay as they are. Tensors keep the file mapped while they
/// need it.
class Weights {
 public:
  Weights(std::shared_ptr<const TensorFile> file, std::string prefix, at::ScalarType dtype, at::Device device);

  const TensorFile& file() const { return *file_; }
  const std::string& prefix() const { return prefix_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  bool has(std::string_view name) const;
  /// Shape from the header. Throws Error naming file and tensor when absent.
  const std::vector<std::int64_t>& shape(std::string_view name) const;
  /// The tensor in dtype() on device(). An 8-bit weight with a scale beside it is widened and scaled. Throws Error naming file and tensor when absent.
  at::Tensor get(std::string_view name) const;
  /// `name`.weight, `name`.bias (if present) and, for 8-bit weights, the scale under either of ComfyUI's spellings
  /// (`name`.scale_weight, `name`.weight_scale).
  Linear linear(std::string_view name) const;
  Conv conv(std::string_view name) const;
  Norm norm(std::string_view name) const;
  /// The same file and target, deeper: names are looked up under prefix() + `name`.
  Weights at(std::string_view name) const;

 private:
  std::shared_ptr<const TensorFile> file_;
  std::string prefix_;
  at::ScalarType dtype_;
  at::Device device_;
};

}  // namespace mgpu
