#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace mgpu {

/// Element types of a safetensors file.
enum class DType : std::uint8_t { F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U64, U32, U16, U8, Bool };

/// Bytes of one element.
std::size_t size_of(DType dtype);

/// The name that a safetensors header uses, e.g. "BF16".
std::string_view name_of(DType dtype);

/// The type that a safetensors header names, or nothing.
std::optional<DType> dtype_named(std::string_view name);

}  // namespace mgpu
