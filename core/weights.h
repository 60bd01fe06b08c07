#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor_file.h"
#include "core/weight.h"

namespace mgpu {

struct StoredWeight;
class Uploader;
class WeightPatches;

/// A linear layer's tensors: y = x @ weight^T + bias.
struct Linear {
  Weight weight;    ///< [out, in], in the compute type, or packed and widened at use
  at::Tensor bias;  ///< [out] or undefined
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

/// Appends those of the tensors that are there, for whoever streams them.
void append_tensors(Linear& layer, std::vector<at::Tensor*>& out);
void append_tensors(Conv& layer, std::vector<at::Tensor*>& out);
void append_tensors(Norm& layer, std::vector<at::Tensor*>& out);

/// What a model reads its weights through: one file, the part of it under `prefix`, delivered on `device` in `dtype`.
/// Wider weights are narrowed at load; packed ones of linear layers (fp8) stay as they are. On the CPU a tensor that
/// has the right type already is the mapping itself: it must not be written to. Tensors keep the file mapped while they
/// need it. What `patches` touch is changed on its way in and is then plain values in `dtype`.
///
/// Scaled fp8 is one factor per weight or per row, element * scale being the value: ComfyUI writes it beside X.weight
/// as X.scale_weight (the file then holds a `scaled_fp8` mark) or, later, as X.weight_scale with a JSON text that names
/// the format, in X.comfy_quant or in the file's _quantization_metadata. Its input scales (X.scale_input,
/// X.input_scale) serve fp8 products only and are not read.
class Weights {
 public:
  /// `prefix` is "" or names a level, with or without the dot that ends it.
  /// `patches` may be null.
  Weights(std::shared_ptr<const TensorFile> file, std::string prefix, at::ScalarType dtype, at::Device device,
          std::shared_ptr<const WeightPatches> patches = nullptr);

  const TensorFile& file() const { return *file_; }
  const std::string& prefix() const { return prefix_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  bool has(std::string_view name) const;
  /// The values' shape, from the header. Throws Error naming file and tensor when absent.
  std::vector<std::int64_t> shape(std::string_view name) const;
  /// The tensor in dtype() on device(). A weight with a scale beside it is scaled in fp32, then rounded once. Throws
  /// Error naming file and tensor when absent or quantised in a way that we do not know.
  at::Tensor get(std::string_view name) const;
  /// `name`.weight, packed if it takes a byte or less per value, and `name`.bias (if present).
  Linear linear(std::string_view name) const;
  /// The same under names of their own.
  Linear linear(std::string_view weight, std::string_view bias) const;
  /// `name`.weight and `name`.bias, both of which must be there.
  Conv conv(std::string_view name) const;
  /// `name`.weight and, if present, `name`.bias.
  Norm norm(std::string_view name) const;
  /// The same file and target, deeper: names are looked up under prefix() + `name` + ".".
  Weights at(std::string_view name) const;
  /// The same tensors, delivered on another device, which computes with them.
  Weights on(at::Device device) const;
  /// The same tensors, delivered in main memory. The device that computes with them stays, and patches are computed
  /// there, so that a streamed block has the bytes of a resident one.
  Weights in_main_memory() const;

 private:
  std::string full(std::string_view name) const;
  const TensorInfo& info(std::string_view name) const;
  StoredWeight stored_as(std::string_view name) const;
  /// As stored, on `device`: device() or the CPU, where it is the mapping.
  Weight load(const StoredWeight& stored, at::Device device) const;
  at::Tensor fetch(const TensorInfo& info, at::IntArrayRef payload_shape, at::Device device) const;
  bool is_patched(std::string_view name) const;
  at::Tensor patched(std::string_view name) const;
  at::Tensor uploaded(const at::Tensor& mapped) const;  ///< to computes_

  std::shared_ptr<const TensorFile> file_;
  std::string prefix_;
  at::ScalarType dtype_;
  at::Device device_;
  at::Device computes_;  ///< the device that computes with the tensors: device_ unless that is main memory
  std::shared_ptr<const WeightPatches> patches_;
  std::shared_ptr<Uploader> uploader_;  ///< of computes_ when it is a CUDA device; shared with deeper views
};

/// The layer's outputs first..first+count-1: views of the same memory, which several layers may lie in.
Linear rows(const Linear& linear, std::int64_t first, std::int64_t count);

/// LibTorch's name for a file's element type.
at::ScalarType scalar_type(DType dtype);

/// The tensor as it lies in the mapping, a packed one as uint8 of its packing's byte_shape(): no copy, read-only; it
/// keeps `file` alive. A tensor that the file does not align to its element size is copied. Either way its bytes are
/// booked with the thread's CPU device while it lives.
at::Tensor mapped_tensor(const std::shared_ptr<const TensorFile>& file, const TensorInfo& info);

}  // namespace mgpu
