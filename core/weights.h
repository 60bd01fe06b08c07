#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>

#include "core/tensor_file.h"

namespace mgpu {

class Uploader;

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
/// Wider weights are narrowed at load; 8-bit ones of linear layers stay as they are. On the CPU a tensor that has the
/// right type already is the mapping itself: it must not be written to. Tensors keep the file mapped while they need
/// it.
///
/// Scaled fp8 is one fp32 factor a weight, weight * scale being the value: ComfyUI writes it beside X.weight as
/// X.scale_weight (the file then holds a `scaled_fp8` mark) or, later, as X.weight_scale with a JSON text X.comfy_quant
/// that names the format. Its input scales (X.scale_input, X.input_scale) serve fp8 products only and are not read.
class Weights {
 public:
  /// `prefix` is "" or names a level, with or without the dot that ends it.
  Weights(std::shared_ptr<const TensorFile> file, std::string prefix, at::ScalarType dtype, at::Device device);

  const TensorFile& file() const { return *file_; }
  const std::string& prefix() const { return prefix_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  bool has(std::string_view name) const;
  /// Shape from the header. Throws Error naming file and tensor when absent.
  const std::vector<std::int64_t>& shape(std::string_view name) const;
  /// The tensor in dtype() on device(). A weight with a scale beside it is scaled in fp32, then rounded once. Throws
  /// Error naming file and tensor when absent or quantised in a way that we do not know.
  at::Tensor get(std::string_view name) const;
  /// `name`.weight, `name`.bias (if present) and, for 8-bit weights, the scale (if present).
  Linear linear(std::string_view name) const;
  /// The same under names of their own.
  Linear linear(std::string_view weight, std::string_view bias) const;
  /// `name`.weight and `name`.bias, both of which must be there.
  Conv conv(std::string_view name) const;
  /// `name`.weight and, if present, `name`.bias.
  Norm norm(std::string_view name) const;
  /// The same file and target, deeper: names are looked up under prefix() + `name` + ".".
  Weights at(std::string_view name) const;
  /// The same tensors, delivered on another device.
  Weights on(at::Device device) const;

 private:
  std::string full(std::string_view name) const;
  const TensorInfo& info(std::string_view name) const;
  at::Tensor fetch(const TensorInfo& info) const;  ///< as stored, on device()

  std::shared_ptr<const TensorFile> file_;
  std::string prefix_;
  at::ScalarType dtype_;
  at::Device device_;
  std::shared_ptr<Uploader> uploader_;  ///< for CUDA devices; shared with deeper views
};

/// The layer's outputs first..first+count-1: views of the same memory, which several layers may lie in.
Linear rows(const Linear& linear, std::int64_t first, std::int64_t count);

/// LibTorch's name for a file's element type.
at::ScalarType scalar_type(DType dtype);

/// The tensor as it lies in the mapping: no copy, read-only; it keeps `file` alive. A tensor that the file does not
/// align to its element size is copied. Either way its bytes are booked with the thread's CPU device while it lives.
at::Tensor mapped_tensor(const std::shared_ptr<const TensorFile>& file, const TensorInfo& info);

}  // namespace mgpu
