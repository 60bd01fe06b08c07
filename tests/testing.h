#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "core/tensor_file.h"

namespace mgpu {

/// The path of a file in tests/goldens.
std::string golden(const std::string& name);

/// A tensor of a golden file, in its own type.
at::Tensor read(const TensorFile& file, const std::string& name);

/// |a - b| / |b| in fp64, over all elements; infinite where shapes differ or a is not finite, so that no comparison
/// passes by accident.
double relative_l2(const at::Tensor& a, const at::Tensor& b);

}  // namespace mgpu
