#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "shard/allocation.h"

// Any bytes as an allocation string: an error at one of its columns, or a value that its normal form gives again.

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  mgpu::AllocationString parsed;
  try {
    parsed = mgpu::parse_allocation(text);
  } catch (const mgpu::AllocationError& e) {
    require(e.column() <= size);
    return 0;
  }
  const std::string normal = mgpu::to_string(parsed);
  const mgpu::AllocationString again = mgpu::parse_allocation(normal);
  require(again == parsed && mgpu::to_string(again) == normal);
  return 0;
}
