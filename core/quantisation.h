#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor_file.h"

namespace mgpu {

class Packing;

/// A weight as a file stores it: one tensor, with what lies beside it.
struct StoredWeight {
  const TensorInfo* info = nullptr;
  std::vector<std::int64_t> shape = {};          ///< of the values
  std::vector<std::int64_t> payload_shape = {};  ///< of the tensor that a Weight keeps as its payload
  const Packing* packing = nullptr;              ///< null: plain values
  const TensorInfo* scale = nullptr;             ///< one number, a factor of all values (Weight::scale)
  std::vector<const TensorInfo*> scales = {};    ///< what else the packing needs (Weight::scales)

  /// Whether it is packed and a value takes a byte or less: a linear layer keeps such a weight as it is.
  bool is_narrow() const;
};

/// A quantisation that descriptions name: {"format": "float8_e4m3fn"}.
struct QuantFormat {
  std::string_view name;
  /// Fills in packing, scales and shapes of the weight `layer` + "weight". Throws Error naming file and tensor.
  void (*read)(const TensorFile& file, const std::string& layer, const nlohmann::json& description,
               StoredWeight& weight);
};

/// What may lie beside a weight X.weight and belongs to it: the last part of the names, after "X.".
std::span<const std::string_view> weight_companions();
/// Whether a tensor of this name belongs to another, the weight.
bool is_weight_companion(std::string_view name);

/// "a.b.weight" -> "a.b."; "" for a tensor of another last name, which has no companions.
std::string_view layer_of(std::string_view name);

/// How the tensor `name` (a full name, whose entry is `info`) is stored. Throws Error (exit 2) naming file and tensor
/// where it is quantised in a way that we cannot read: its description (the tensor X.comfy_quant, or the file's
/// _quantization_metadata) names a format that is not among ours, or its scales do not fit its rows. Reads no data but
/// the description's, a JSON text of some 30 bytes.
StoredWeight stored_weight(const TensorFile& file, std::string_view name, const TensorInfo& info);

}  // namespace mgpu
