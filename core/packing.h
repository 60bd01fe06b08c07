#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace mgpu {

struct TensorInfo;
struct Weight;

/// How a weight's numbers are stored where they are not simply elements of a type that we compute in. One object for
/// each packing, which lives as long as the program.
class Packing {
 public:
  virtual ~Packing() = default;
  /// "fp8".
  virtual std::string_view name() const = 0;
  /// The shape of the values, [out, in] for a linear layer.
  virtual std::vector<std::int64_t> shape(const Weight& weight) const = 0;
  /// The values without the factor `weight.scale`, in `dtype`. Other scales are multiplied in fp32, and the product is
  /// rounded once.
  virtual at::Tensor unpacked(const Weight& weight, at::ScalarType dtype) const = 0;
  /// Rows first..first+count-1 of the values: views of the same memory.
  virtual Weight rows(const Weight& weight, std::int64_t first, std::int64_t count) const = 0;
  /// The shape of the uint8 tensor that holds the file's bytes, for a packing that a file's reader names
  /// (TensorInfo::packing). Others are stored as a tensor of their own type and shape, and are not asked.
  virtual std::vector<std::int64_t> byte_shape(const TensorInfo& info) const;
};

/// Elements of a type that LibTorch widens (fp8, or wider), with one factor, or one scale per row in Weight::scales:
/// value = element * scale[row].
const Packing& element_packing();

}  // namespace mgpu
