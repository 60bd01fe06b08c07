#include "shard/needs.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "shard/coding_needs.h"
#include "shard/need_parts.h"
#include "shard/work.h"

namespace mgpu {
namespace {

constexpr std::uint64_t kFluxHeadDim = 128;
// That a sampler keeps of a picture: noise, x, what was denoised, a few of earlier steps and what is being computed.
constexpr std::uint64_t kLatentsOfPicture = 10;

std::size_t size(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

/// CLIP and T5 compute in fp32: beside the weights lies one linear layer's weight, widened, and a block's activations.
std::uint64_t encoder_activation(std::uint64_t tokens, std::uint64_t hidden, std::uint64_t mlp, std::uint64_t heads) {
  const std::uint64_t widened = hidden * mlp;
  const std::uint64_t block = tokens * (6 * hidden + 3 * mlp) + 2 * heads * tokens * tokens;
  return (widened + block) * kFp32;
}

/// The same on a CPU, whose attention keeps no scores: T5's is its gated MLP's product beside attention's bias, or that
/// bias in the making (64-bit distances, or as it is looked up); CLIP's the product of its GELU.
std::uint64_t encoder_activation_on_cpu(std::uint64_t tokens, std::uint64_t hidden, std::uint64_t mlp,
                                        std::uint64_t heads, bool t5) {
  const std::uint64_t pairs = t5 ? tokens * tokens * kFp32 : 0;
  const std::uint64_t attention = tokens * 7 * hidden * kFp32 + attention_scratch(hidden / heads);
  const std::uint64_t mlps = (hidden * mlp + tokens * (5 * hidden + (t5 ? 3 : 4) * mlp)) * kFp32;
  return std::max({mlps + heads * pairs, attention + heads * pairs, 16 * pairs, (2 + 2 * heads) * pairs});
}

/// A single block's widest point is before its last product: the state, q, k, v, attention's output, the packed
/// projections and the last product's input.
std::uint64_t flux_activation(const FluxSizes& sizes, std::uint64_t tokens, std::uint64_t width) {
  const auto hidden = static_cast<std::uint64_t>(sizes.hidden), mlp = static_cast<std::uint64_t>(sizes.mlp);
  return tokens * (9 * hidden + 2 * mlp + hidden) * width;
}

std::uint64_t flux_tokens(const LargestPicture& picture) {
  return size(picture.text_tokens + picture.width * picture.height / 256);  // 8 pixels a latent value, 2 of them a side
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
    kind.of_text.assign(size(kind.count), vectors * size(sizes.hidden) * steps * width);
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
std::uint64_t flux_activation_on_cpu(const FluxSizes& sizes, const LargestPicture& picture, bool widens,
                                     std::uint64_t width) {
  const std::uint64_t tokens = flux_tokens(picture), hidden = size(sizes.hidden), mlp = size(sizes.mlp);
  const std::uint64_t first = widens ? hidden * (3 * hidden + mlp) : 0, last = widens ? hidden * (hidden + mlp) : 0;
  const std::uint64_t project_in = (tokens * (5 * hidden + mlp) + first) * width;
  const std::uint64_t turn = tokens * ((7 * hidden + mlp) * width + 5 * hidden * kFp32);
  const std::uint64_t attend = tokens * (8 * hidden + mlp) * width + attention_scratch(kFluxHeadDim);
  const std::uint64_t join = tokens * (6 * hidden + 3 * mlp) * width;
  const std::uint64_t project_out = (tokens * (7 * hidden + 2 * mlp) + last) * width;
  return std::max({project_in, turn, attend, join, project_out}) + flux_modulation(sizes, picture.levels, width);
}

/// What a run's sampler keeps for a picture.
std::uint64_t latent_bytes(std::uint64_t channels, const LargestPicture& picture) {
  return kLatentsOfPicture * size(picture.width * picture.height / 64) * channels * kFp32;
}

/// Whether the part has 8-bit weights.
bool is_narrow(const Part& part) {
  return std::ranges::any_of(part.tensors(), [&](const auto& tensor) {
    return tensor.first.starts_with(part.prefix) && size_of(tensor.second.dtype) == 1;
  });
}

/// Values a position of a UNet's block at its widest: in the residual block its input, that normalised and that again
/// for the convolution, with the result (or input and four tensors of the result's width around the second
/// convolution); in the transformer its feed-forward (the image, the tokens before and after attention, those
/// normalised, both halves of GEGLU's input, GELU of one of them and their product, each four times as wide as the
/// tokens).
std::uint64_t unet_block_values(std::uint64_t in, std::uint64_t out, int depth) {
  const std::uint64_t residual = std::max(3 * in + out, in + 4 * out), feed_forward = 4 * out + 16 * out;
  return depth > 0 ? std::max(residual, feed_forward) : residual;
}

/// A UNet's widest point is in the middle or on the way up, where skips wait: they count. SDXL's is the first
/// feed-forward of its second level.
std::uint64_t unet_activation(const UNetSizes& sizes, const LargestPicture& picture, std::uint64_t width) {
  const std::vector<std::uint64_t> positions = unet_positions(sizes, picture);
  std::vector<std::uint64_t> waiting{0};  // values of the first i skips
  for (std::size_t i = 0; i < sizes.down.size(); ++i)
    waiting.push_back(waiting.back() + positions[i] * size(sizes.down[i].out));
  const std::uint64_t channels = size(sizes.down.back().out);
  std::uint64_t most = waiting.back() + positions.back() * unet_block_values(channels, channels, sizes.depth_middle);
  for (std::size_t i = 0; i < sizes.up.size(); ++i) {
    const UNetBlockSizes& up = sizes.up[i];
    const std::size_t skip = size(sizes.skip_of(static_cast<int>(i)));
    most = std::max(most,
                    waiting[skip] + positions[skip] * unet_block_values(size(up.in + up.skip), size(up.out), up.depth));
    // The image, that at the next size, and its convolution.
    if (up.resamples) most = std::max(most, waiting[skip] + size(up.out) * (positions[skip] + 2 * positions[skip - 1]));
  }
  return most * width;
}

/// What an evaluation that waits for a device keeps: its skips, and the image at the first level.
std::uint64_t unet_waiting(const UNetSizes& sizes, const LargestPicture& picture, std::uint64_t width) {
  const std::vector<std::uint64_t> positions = unet_positions(sizes, picture);
  std::uint64_t values = positions.front() * size(sizes.down.front().out);
  for (std::size_t i = 0; i < sizes.down.size(); ++i) values += positions[i] * size(sizes.down[i].out);
  return values * width;
}

/// On a CPU the same, but that many threads' attention may take more where skips wait for all ways up: the image, the
/// tokens, those normalised, q, k, v and what comes of them.
std::uint64_t unet_activation_on_cpu(const UNetSizes& sizes, const LargestPicture& picture, std::uint64_t width) {
  constexpr std::uint64_t kWidestHead = 160;
  const std::vector<std::uint64_t> positions = unet_positions(sizes, picture);
  std::uint64_t tokens = 0;
  for (std::size_t i = 0; i < sizes.down.size(); ++i)
    if (sizes.down[i].depth > 0) tokens = std::max(tokens, 8 * positions[i] * size(sizes.down[i].out));
  return std::max(unet_activation(sizes, picture, width),
                  unet_waiting(sizes, picture, width) + tokens * width + attention_scratch(kWidestHead));
}

/// Sets what a UNet's blocks keep: of a pass the skips, of a text the keys and values of each transformer block.
/// Returns the largest image that goes from block to block.
std::uint64_t set_kept(std::vector<BlockNeed>& blocks, const UNetSizes& sizes, const LargestPicture& picture,
                       std::uint64_t width) {
  const std::vector<std::uint64_t> positions = unet_positions(sizes, picture);
  const auto text = [&](int depth, int channels) {
    return 2 * size(picture.text_tokens) * size(depth) * size(channels) * width;
  };
  std::uint64_t most = 0;
  for (std::size_t i = 0; i < sizes.down.size(); ++i) {
    const UNetBlockSizes &down = sizes.down[i], &up = sizes.up[i];
    blocks.front().of_pass.push_back(positions[i] * size(down.out) * width);
    blocks.front().of_text.push_back(text(down.depth, down.out));
    blocks.back().of_text.push_back(text(up.depth, up.out));
    const std::size_t skip = size(sizes.skip_of(static_cast<int>(i)));
    const std::size_t at = up.resamples ? skip - 1 : skip;
    most = std::max({most, positions[i] * size(down.out), positions[at] * size(up.out)});
  }
  if (blocks.size() == 3) blocks[1].of_text = {text(sizes.depth_middle, sizes.down.back().out)};
  return most * width;
}

/// Whether a tensor serves only what is computed before the steps: Flux's modulation, and the text's keys and values of
/// a UNet's cross-attention.
bool serves_ahead(std::string_view name) {
  constexpr std::array<std::string_view, 5> kLayers = {".img_mod.", ".txt_mod.", ".modulation.", ".attn2.to_k.",
                                                       ".attn2.to_v."};
  return std::ranges::any_of(kLayers, [&](std::string_view layer) { return name.find(layer) != name.npos; });
}

/// `count` blocks of one kind, weighed one by one: 8-bit files keep some of them wider.
BlockNeed blocks_below(const char* kind, int count, const Part& part, std::string_view level, at::ScalarType dtype) {
  BlockNeed out{kind, count, 0};
  for (int i = 0; i < count; ++i) {
    const std::string prefix = fmt::format("{}{}{}.", part.prefix, level, i);
    std::uint64_t& bytes = out.each.emplace_back(0);
    std::uint64_t& ahead = out.ahead.emplace_back(0);
    for (auto tensor = part.tensors().lower_bound(prefix);
         tensor != part.tensors().end() && tensor->first.starts_with(prefix); ++tensor) {
      const std::uint64_t loaded = loaded_bytes(tensor->second, dtype);
      bytes += loaded;
      if (serves_ahead(tensor->first)) ahead += loaded;
    }
    out.bytes += bytes;
  }
  return out;
}

/// The largest layer that serves ahead, as it is stored and as it is computed with.
std::uint64_t ahead_weights(const Part& part, at::ScalarType dtype) {
  std::uint64_t most = 0;
  for (const auto& [name, info] : part.tensors())
    if (name.starts_with(part.prefix) && serves_ahead(name))
      most = std::max(most, static_cast<std::uint64_t>(info.count()) * (size_of(info.dtype) + c10::elementSize(dtype)));
  return most;
}

/// What an encoder reads of its part; files hold more (T5's token embedding twice, a projection that is not used).
ComponentNeed encoder_need(const char* name, const Part& part, at::ScalarType dtype, BlockNeed layers,
                           std::uint64_t stem, std::uint64_t head, std::uint64_t activation,
                           std::uint64_t activation_on_cpu) {
  const std::uint64_t bytes = stem + layers.bytes + head;
  return {.name = name,
          .phase = Phase::Encode,
          .blocks = {std::move(layers)},
          .bytes = bytes,
          .activation = activation + kWorkspace,
          .head = head,
          .activation_on_cpu = std::max(activation_on_cpu, loading_bytes(part, dtype))};
}

ComponentNeed clip_need(const char* name, const Part& part, const ComputeDtypes& dtypes, bool projects) {
  const ClipSizes& clip = part.clip();
  const at::ScalarType dtype = dtypes.encoders.value_or(stored_type(part));
  // "text_model.encoder.layers." lies beside "text_model.embeddings."; OpenCLIP's layout is flat.
  const std::size_t level = clip.layers_prefix.find("encoder.layers.");
  const bool is_open_clip = level == std::string::npos;
  const std::string model = is_open_clip ? "" : clip.layers_prefix.substr(0, level);
  const auto below = [&](std::string_view names) { return bytes_below(part, names, dtype); };
  const std::uint64_t stem =
      is_open_clip ? below("token_embedding.") + below("positional_embedding")
                   : below(model + "embeddings.token_embedding.") + below(model + "embeddings.position_embedding.");
  const std::uint64_t tokens = size(clip.positions), hidden = size(clip.hidden), mlp = size(clip.mlp);
  return encoder_need(
      name, part, dtype, blocks_below("layer", clip.layers, part, clip.layers_prefix, dtype), stem,
      below(is_open_clip ? "ln_final." : model + "final_layer_norm.") + (projects ? below("text_projection") : 0),
      encoder_activation(tokens, hidden, mlp, size(clip.heads)),
      encoder_activation_on_cpu(tokens, hidden, mlp, size(clip.heads), false));
}

ComponentNeed t5_need(const Part& part, const ComputeDtypes& dtypes, std::uint64_t text) {
  const T5Sizes& t5 = part.t5();
  const at::ScalarType dtype = dtypes.encoders.value_or(stored_type(part));
  BlockNeed layers = blocks_below("layer", t5.layers, part, "encoder.block.", dtype);
  // It lies in the first block by name; what is read from it travels from block to block.
  const std::uint64_t positions =
      bytes_below(part, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.", dtype);
  layers.each.front() -= positions;
  layers.bytes -= positions;
  const std::uint64_t hidden = size(t5.hidden), mlp = size(t5.mlp);
  return encoder_need("t5xxl", part, dtype, std::move(layers), bytes_below(part, t5.embedding, dtype) + positions,
                      bytes_below(part, "encoder.final_layer_norm.", dtype),
                      encoder_activation(text, hidden, mlp, size(t5.heads)),
                      encoder_activation_on_cpu(text, hidden, mlp, size(t5.heads), true));
}

/// Whether the family multiplies the encoder's pooled output with its projection.
bool projects(const TextRecipe& recipe, TextEncoder encoder) {
  return std::ranges::any_of(recipe.encoders, [&](const EncoderUse& use) {
    return use.encoder == encoder && use.pooled == EncoderUse::Pooled::Projected;
  });
}

ComponentNeed flux_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) {
  const FluxSizes& flux = part.flux();
  const std::uint64_t tokens = flux_tokens(picture), width = c10::elementSize(dtype);
  std::vector<BlockNeed> blocks{blocks_below("double", flux.depth, part, "double_blocks.", dtype),
                                blocks_below("single", flux.depth_single, part, "single_blocks.", dtype)};
  const std::uint64_t latents = latent_bytes(size(flux.channels), picture);
  set_modulation(blocks, flux, size(picture.levels), width);
  set_flux_work(blocks, flux, flux_tokens(picture));
  return {.name = "unet",
          .phase = Phase::Sample,
          .blocks = std::move(blocks),
          .bytes = loaded_bytes(part, dtype),
          .activation = flux_activation(flux, tokens, width) + kWorkspace,
          .ahead_activation = ahead_weights(part, dtype) + kWorkspace,
          .passing = flux_state(flux, tokens, width),
          .of_text = flux_rotary(flux, tokens),
          .head = bytes_below(part, "final_layer.", dtype),
          .each = bytes_below(part, "time_in.", dtype) + bytes_below(part, "vector_in.", dtype) +
                  bytes_below(part, "guidance_in.", dtype),
          .home = size(picture.batch) * latents,
          .latents = latents,
          .activation_on_cpu =
              std::max(loading_bytes(part, dtype), flux_activation_on_cpu(flux, picture, is_narrow(part), width)),
          .ahead_activation_on_cpu = ahead_weights(part, dtype)};
}

ComponentNeed unet_need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) {
  const UNetSizes& unet = part.unet();
  const int ways = static_cast<int>(unet.down.size());
  std::vector<BlockNeed> blocks{blocks_below("down", ways, part, "input_blocks.", dtype)};
  if (unet.middle_residuals > 0) blocks.push_back({"middle", 1, bytes_below(part, "middle_block.", dtype)});
  blocks.push_back(blocks_below("up", ways, part, "output_blocks.", dtype));
  set_unet_work(blocks, unet, picture);
  const std::uint64_t width = c10::elementSize(dtype), latents = latent_bytes(size(unet.channels_out), picture);
  const std::uint64_t passing = set_kept(blocks, unet, picture, width);
  return {.name = "unet",
          .phase = Phase::Sample,
          .blocks = std::move(blocks),
          .bytes = loaded_bytes(part, dtype),
          .activation = unet_activation(unet, picture, width) + kWorkspace,
          .ahead_activation = ahead_weights(part, dtype) + kWorkspace,
          .passing = passing,
          .head = bytes_below(part, "out.", dtype),
          .mirrored = true,
          .home = size(picture.batch) * latents,
          .latents = latents,
          .activation_on_cpu = std::max(loading_bytes(part, dtype), unet_activation_on_cpu(unet, picture, width)),
          .ahead_activation_on_cpu = ahead_weights(part, dtype)};
}

/// What encoders give for a prompt, in fp32; put together it is at most as much. CLIP reads a long prompt in chunks.
std::uint64_t conditioning_bytes(const ModelSet& models, const LargestPicture& picture) {
  std::uint64_t values = models.t5xxl ? size(picture.text_tokens) * size(models.t5xxl->t5().hidden) : 0;
  for (const std::optional<Part>* clip : {&models.clip_l, &models.clip_g})
    if (*clip) values += size(picture.clip_tokens) * size((*clip)->clip().hidden);
  return values * kFp32;
}

/// Adds every prompt's conditioning: beside the encoders, then once more as it is put together; from there on beside
/// the diffusion model's first block.
void add_conditionings(std::vector<ComponentNeed>& needs, const ModelSet& models, const LargestPicture& picture) {
  const std::uint64_t bytes = size(picture.prompts) * conditioning_bytes(models, picture);
  for (ComponentNeed& need : needs) {
    if (need.phase == Phase::Sample) need.home += bytes;
    if (need.phase != Phase::Encode) continue;
    need.activation += bytes;
    *need.activation_on_cpu = std::max(*need.activation_on_cpu + bytes, 2 * bytes);
  }
}

}  // namespace

std::vector<ComponentNeed> component_needs(const ModelSet& models, const ComputeDtypes& dtypes,
                                           const LargestPicture& picture) {
  const std::uint64_t text = size(picture.text_tokens);
  std::vector<ComponentNeed> out;
  if (models.clip_l)
    out.push_back(clip_need("clip_l", *models.clip_l, dtypes, projects(models.text(), TextEncoder::ClipL)));
  if (models.clip_g)
    out.push_back(clip_need("clip_g", *models.clip_g, dtypes, projects(models.text(), TextEncoder::ClipG)));
  if (models.t5xxl) out.push_back(t5_need(*models.t5xxl, dtypes, text));
  out.push_back(models.is_flux() ? flux_need(models.diffusion, dtypes.unet, picture)
                                 : unet_need(models.diffusion, dtypes.unet, picture));
  const double pass = work_of(out.back());
  out.push_back(decoder_need(models.vae, dtypes.vae, picture));
  out.back().time_a_pass =
      decode_work(models.vae, picture) / (pass * static_cast<double>(picture.levels * picture.texts));
  add_conditionings(out, models, picture);
  return out;
}

}  // namespace mgpu
