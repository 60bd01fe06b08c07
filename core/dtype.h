#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace mgpu {

/// Element types of a safetensors file. `Other` is a type that we do not compute with (F8_E8M0, F4, C64, ...): such a
/// tensor does no harm until something needs it.
enum class DType : std::uint8_t {
  F64,
  F32,
  F16,
  BF16,
  F8_E4M3,
  F8_E5M2,
  I64,
  I32,
  I16,
  I8,
  U64,
  U32,
  U16,
  U8,
  Bool,
  Other,
};

/// Whether weights of this type can be computed with: floating point of 64 to 8 bits.
bool is_floating(DType dtype);

/// Bytes of one element; 1 for Other, whose elements may have any size.
std::size_t size_of(DType dtype);

/// The name that a safetensors header uses, e.g. "BF16". Other has none of its own: TensorInfo::type_name().
std::string_view name_of(DType dtype);

/// The type that a safetensors header names, or nothing.
std::optional<DType> dtype_named(std::string_view name);

}  // namespace mgpu
