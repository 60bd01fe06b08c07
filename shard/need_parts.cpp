#include "shard/need_parts.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

namespace mgpu {

std::uint64_t bytes_below(const Part& part, std::string_view level, at::ScalarType dtype) {
  Part below = part;
  below.prefix += level;
  return loaded_bytes(below, dtype);
}

std::vector<std::uint64_t> unet_positions(const UNetSizes& sizes, const LargestPicture& picture) {
  std::vector<std::uint64_t> out;
  std::uint64_t rows = static_cast<std::uint64_t>(picture.height / 8),
                columns = static_cast<std::uint64_t>(picture.width / 8);
  for (const UNetBlockSizes& down : sizes.down) {
    if (down.resamples) rows = (rows + 1) / 2, columns = (columns + 1) / 2;
    out.push_back(rows * columns);
  }
  return out;
}

std::uint64_t attention_scratch(std::uint64_t head_dim) {
  return static_cast<std::uint64_t>(at::get_num_threads()) * (256 * 512 + 2 * 256 + 256 * head_dim) * kFp32;
}

std::uint64_t loading_bytes(const Part& part, at::ScalarType dtype) {
  std::uint64_t most = 0;
  for (const auto& [name, info] : part.tensors()) {
    if (!name.starts_with(part.prefix)) continue;
    const bool narrow = size_of(info.dtype) == 1;
    if (!narrow && scalar_type(info.dtype) != dtype) most = std::max(most, info.bytes());
    if (info.shape.size() == 4)
      most = std::max(most, static_cast<std::uint64_t>(info.count()) * c10::elementSize(dtype));
  }
  return most;
}

}  // namespace mgpu
