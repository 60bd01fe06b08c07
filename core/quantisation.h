#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/tensor_file.h"

namespace mgpu {

/// What may lie beside a weight X.weight and belongs to it: the last part of the names, after "X.".
std::span<const std::string_view> weight_companions();

/// "a.b.weight" -> "a.b."; "" for a tensor of another last name, which has no companions.
std::string_view layer_of(std::string_view name);

/// The tensor with the scale of the weight `name` (a full name), or null. Throws Error (exit 2) naming file and tensor
/// where the weight is quantised in a way that we cannot read: its description (the tensor X.comfy_quant, or the file's
/// _quantization_metadata) names another format than plain fp8, or it has more than one scale. Reads no data but the
/// description's, a JSON text of some 30 bytes.
const TensorInfo* scale_tensor(const TensorFile& file, std::string_view name);

}  // namespace mgpu
