// Any bytes as a safetensors header: an Error or a header that holds what parse_tensor_header promises, never anything
// else.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "core/safetensors.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

/// Every tensor lies within the data, has the size that its shape asks for (of a type that we do not know nobody can
/// tell), and all together fill it.
void check(const mgpu::TensorHeader& header, std::uint64_t data_bytes) {
  std::uint64_t total = 0;
  for (const auto& [name, info] : header.tensors) {
    require(info.begin <= info.end && info.end <= data_bytes);
    std::uint64_t wanted = mgpu::size_of(info.dtype);
    for (const std::int64_t dim : info.shape) {
      require(dim >= 0);
      wanted *= static_cast<std::uint64_t>(dim);
    }
    require(info.dtype == mgpu::DType::Other || info.bytes() == wanted);
    total += info.bytes();
  }
  require(total == data_bytes);
}

}  // namespace

/// The input's first two bytes are the size of the data section, the rest is the header.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::uint64_t data_bytes = data[0] | static_cast<std::uint64_t>(data[1]) << 8;
  try {
    check(mgpu::parse_tensor_header({reinterpret_cast<const char*>(data) + 2, size - 2}, data_bytes, "fuzz"),
          data_bytes);
  } catch (const mgpu::Error&) {
  }
  return 0;
}
