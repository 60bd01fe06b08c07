#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "core/model_set.h"
#include "core/models/flux_model.h"
#include "core/models/flux_sizes.h"
#include "core/need_parts.h"

namespace mgpu {
namespace {

// Layers that serve only what is computed before the steps: the modulation.
constexpr std::array<std::string_view, 3> kPrecomputed = {".img_mod.", ".txt_mod.", ".modulation."};

// The double blocks: the text's products have few rows (measured on an H200 at 1024x1024).
constexpr double kSlownessOfDoubles = 1.04;

std::size_t size(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

/// A single block's widest point is before its last product: the state, q, k, v, attention's output, the packed
/// projections and the last product's input.
std::uint64_t flux_activation(const FluxSizes& sizes, std::uint64_t tokens, std::uint64_t width) {
  const auto hidden = static_cast<std::uint64_t>(sizes.hidden), mlp = static_cast<std::uint64_t>(sizes.mlp);
  return tokens * (9 * hidden + 2 * mlp + hidden) * width;
}

std::uint64_t flux_tokens(const LargestPicture& picture, const LatentFormat& format) {
  const std::int64_t side = 2 * format.factor;  // of a token's patch, in pixels
  return size(picture.text_tokens + picture.pixels() / (side * side));
}

/// A state that waits: image and text.
std::uint64_t flux_state(const FluxSizes& sizes, std::uint64_t tokens, std::uint64_t width) {
  return tokens * size(sizes.hidden) * width;
}

/// A text's rotary table, cosines and sines, for all passes that are told it.
std::uint64_t flux_rotary(const FluxSizes& sizes, std::uint64_t tokens) {
  return tokens * size(sizes.hidden / sizes.heads) * kFp32;
}

/// Sets what runs compute ahead for Flux's blocks: the modulation of all steps, six vectors for image and for text in a
/// double block, three in a single one. The head's two are left out: a thousandth of that.
void set_modulation(std::vector<BlockNeed>& blocks, const FluxSizes& sizes, std::uint64_t steps, std::uint64_t width) {
  for (BlockNeed& kind : blocks) {
    const std::uint64_t vectors = kind.kind == "double" ? 12 : 3;
    kind.bytes_per_prompt.assign(size(kind.count), vectors * size(sizes.hidden) * steps * width);
  }
}

/// All modulation vectors of a run, for one text: those of the blocks, and two of the head.
std::uint64_t flux_modulation(const FluxSizes& sizes, std::int64_t steps, std::uint64_t width) {
  return size(steps * (12 * sizes.depth + 3 * sizes.depth_single + 2) * sizes.hidden) * width;
}

/// On a CPU a single block's widest point is where attention's output and GELU of the MLP's are joined: the state, the
/// packed projections, both, and the two joined. With short MLPs it is where queries and keys are normalised and
/// turned: the state, the packed projections, q, k, v, and five more as wide in fp32. A product by an 8-bit weight has
/// that widened beside it. What a run's vectors are computed from, and the head's, are less than a text's modulation.
std::uint64_t flux_activation_on_cpu(const FluxSizes& sizes, std::uint64_t tokens, std::int64_t timesteps, bool widens,
                                     std::uint64_t width) {
  const std::uint64_t hidden = size(sizes.hidden), mlp = size(sizes.mlp);
  const std::uint64_t first = widens ? hidden * (3 * hidden + mlp) : 0, last = widens ? hidden * (hidden + mlp) : 0;
  const std::uint64_t project_in = (tokens * (5 * hidden + mlp) + first) * width;
  const std::uint64_t rotary = tokens * ((7 * hidden + mlp) * width + 5 * hidden * kFp32);
  const std::uint64_t attend = tokens * (8 * hidden + mlp) * width + attention_scratch(hidden / size(sizes.heads));
  const std::uint64_t join = tokens * (6 * hidden + 3 * mlp) * width;
  const std::uint64_t project_out = (tokens * (7 * hidden + 2 * mlp) + last) * width;
  return std::max({project_in, rotary, attend, join, project_out}) + flux_modulation(sizes, timesteps, width);
}

/// Sets the times of the blocks, for so many tokens of text and image. A double block weighs 2.4 times a single one and
/// multiplies as much: each of its matrices serves some of the tokens.
void set_flux_work(std::vector<BlockNeed>& blocks, const FluxSizes& sizes, std::uint64_t tokens) {
  const auto n = static_cast<double>(tokens), hidden = static_cast<double>(sizes.hidden),
             mlp = static_cast<double>(sizes.mlp);
  const double work = attention_work(n, hidden) + 2 * n * hidden * mlp;
  for (BlockNeed& kind : blocks)
    kind.times.assign(static_cast<std::size_t>(kind.count), kind.kind == "double" ? kSlownessOfDoubles * work : work);
}

}  // namespace

ComponentNeed FluxModel::need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const {
  const auto& flux = part.as<FluxSizes>();
  const LatentFormat& format = part.row->training->latent;
  const std::uint64_t tokens = flux_tokens(picture, format), width = c10::elementSize(dtype);
  std::vector<BlockNeed> blocks{blocks_below("double", flux.depth, part, "double_blocks.", dtype, kPrecomputed),
                                blocks_below("single", flux.depth_single, part, "single_blocks.", dtype, kPrecomputed)};
  const std::uint64_t latents = latent_bytes(format, picture);
  set_modulation(blocks, flux, size(picture.timesteps), width);
  set_flux_work(blocks, flux, tokens);
  return {.name = "unet",
          .phase = Phase::Sample,
          .blocks = std::move(blocks),
          .bytes = loaded_bytes(part, dtype),
          .activation = flux_activation(flux, tokens, width) + kWorkspace,
          .precompute_activation = largest_precomputed(part, dtype, kPrecomputed) + kWorkspace,
          .pass_bytes = flux_state(flux, tokens, width),
          .bytes_per_prompt = flux_rotary(flux, tokens),
          .head = bytes_below(part, "final_layer.", dtype),
          .replicated_bytes = bytes_below(part, "time_in.", dtype) + bytes_below(part, "vector_in.", dtype) +
                              bytes_below(part, "guidance_in.", dtype),
          .latent_device_bytes = size(picture.batch) * latents,
          .latents = latents,
          .activation_on_cpu =
              std::max(loading_bytes(part, dtype),
                       flux_activation_on_cpu(flux, tokens, picture.timesteps, has_8bit_weights(part), width)),
          .precompute_activation_on_cpu = largest_precomputed(part, dtype, kPrecomputed)};
}

}  // namespace mgpu
