#include "core/dtype.h"

#include <array>

namespace mgpu {
namespace {

struct Row {
  std::string_view name;
  std::size_t size;
};

// In DType's order.
constexpr std::array<Row, 16> kRows{{{"F64", 8},
                                     {"F32", 4},
                                     {"F16", 2},
                                     {"BF16", 2},
                                     {"F8_E4M3", 1},
                                     {"F8_E5M2", 1},
                                     {"I64", 8},
                                     {"I32", 4},
                                     {"I16", 2},
                                     {"I8", 1},
                                     {"U64", 8},
                                     {"U32", 4},
                                     {"U16", 2},
                                     {"U8", 1},
                                     {"BOOL", 1},
                                     {"another type", 1}}};
static_assert(static_cast<std::size_t>(DType::Other) + 1 == kRows.size());

}  // namespace

bool is_floating(DType dtype) {
  return dtype <= DType::F8_E5M2;
}

std::size_t size_of(DType dtype) {
  return kRows[static_cast<std::size_t>(dtype)].size;
}

std::string_view name_of(DType dtype) {
  return kRows[static_cast<std::size_t>(dtype)].name;
}

std::optional<DType> dtype_named(std::string_view name) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(DType::Other); ++i)
    if (kRows[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

}  // namespace mgpu
