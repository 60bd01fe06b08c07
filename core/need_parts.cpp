#include "core/need_parts.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/model_set.h"
#include "core/weight_patches.h"

namespace mgpu {
namespace {

// That a sampler keeps of a picture: noise, x, what was denoised, a few of earlier steps and what is being computed.
constexpr std::uint64_t kLatentsOfPicture = 10;

bool is_one_of(std::string_view name, std::span<const std::string_view> layers) {
  return std::ranges::any_of(layers, [&](std::string_view layer) { return name.find(layer) != name.npos; });
}

}  // namespace

std::uint64_t bytes_below(const Part& part, std::string_view level, at::ScalarType dtype) {
  Part below = part;
  below.prefix += level;
  return loaded_bytes(below, dtype);
}

BlockNeed blocks_below(std::string_view kind, int count, const Part& part, std::string_view level, at::ScalarType dtype,
                       std::span<const std::string_view> precomputed) {
  BlockNeed out{std::string(kind), count, 0};
  for (int i = 0; i < count; ++i) {
    const std::string prefix = fmt::format("{}{}{}.", part.prefix, level, i);
    std::uint64_t& bytes = out.bytes_each.emplace_back(0);
    std::uint64_t& before = out.precomputed.emplace_back(0);
    for (auto tensor = part.tensors().lower_bound(prefix);
         tensor != part.tensors().end() && tensor->first.starts_with(prefix); ++tensor) {
      const std::uint64_t loaded = loaded_bytes(part, tensor->first, tensor->second, dtype);
      bytes += loaded;
      if (is_one_of(tensor->first, precomputed)) before += loaded;
    }
    out.bytes += bytes;
  }
  return out;
}

std::uint64_t largest_precomputed(const Part& part, at::ScalarType dtype,
                                  std::span<const std::string_view> precomputed) {
  std::uint64_t most = 0;
  for (const auto& [name, info] : part.tensors())
    if (name.starts_with(part.prefix) && is_one_of(name, precomputed))
      most = std::max(most, static_cast<std::uint64_t>(info.count()) * (size_of(info.dtype) + c10::elementSize(dtype)));
  return most;
}

bool has_8bit_weights(const Part& part) {
  return std::ranges::any_of(part.tensors(), [&](const auto& tensor) {
    return tensor.first.starts_with(part.prefix) && size_of(tensor.second.dtype) == 1;
  });
}

std::uint64_t latent_bytes(const LatentFormat& format, const LargestPicture& picture) {
  const auto values = static_cast<std::uint64_t>(picture.pixels() / (format.factor * format.factor));
  return kLatentsOfPicture * values * static_cast<std::uint64_t>(format.channels) * kFp32;
}

ComponentNeed encoder_need(std::string_view key, const Part& part, at::ScalarType dtype, BlockNeed layers,
                           std::uint64_t stem, std::uint64_t head, std::uint64_t activation,
                           std::uint64_t activation_on_cpu) {
  const std::uint64_t bytes = stem + layers.bytes + head;
  return {.name = std::string(key),
          .phase = Phase::Encode,
          .blocks = {std::move(layers)},
          .bytes = bytes,
          .activation = activation + kWorkspace,
          .head = head,
          .activation_on_cpu = std::max(activation_on_cpu, loading_bytes(part, dtype))};
}

std::uint64_t encoder_activation(std::uint64_t tokens, std::uint64_t hidden, std::uint64_t mlp, std::uint64_t heads) {
  const std::uint64_t widened = hidden * mlp;
  const std::uint64_t block = tokens * (6 * hidden + 3 * mlp) + 2 * heads * tokens * tokens;
  return (widened + block) * kFp32;
}

std::uint64_t attention_scratch(std::uint64_t head_dim) {
  return static_cast<std::uint64_t>(at::get_num_threads()) * (256 * 512 + 2 * 256 + 256 * head_dim) * kFp32;
}

std::uint64_t loading_bytes(const Part& part, at::ScalarType dtype) {
  std::uint64_t most = 0;
  for (const auto& [name, info] : part.tensors()) {
    if (!name.starts_with(part.prefix)) continue;
    if (part.patches && part.patches->touches(name)) most = std::max(most, info.bytes() + kPatchingBytes);
    const bool narrow = size_of(info.dtype) == 1;
    if (!narrow && scalar_type(info.dtype) != dtype) most = std::max(most, info.bytes());
    if (info.shape.size() == 4)
      most = std::max(most, static_cast<std::uint64_t>(info.count()) * c10::elementSize(dtype));
  }
  return most;
}

double residual_work(double positions, double in, double out) {
  return positions * out * (9 * in + 9 * out + (in == out ? 0 : in));
}

double attention_work(double positions, double width) {
  return positions * width * (4 * width + 2 * positions);
}

}  // namespace mgpu
