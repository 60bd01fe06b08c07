#include "core/model_set.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/part_shapes.h"
#include "core/strings.h"
#include "core/text/clip_tokenizer.h"
#include "core/text/t5_tokenizer.h"

namespace mgpu {
namespace {

constexpr int kSizeWidth = 256;   // of one number's embedding in SDXL's vector
constexpr int kChunkTokens = 77;  // of CLIP

bool belongs(const Part& part, std::string_view name) {
  return name.starts_with(part.prefix);
}

/// Floating point of more than 8 bits.
bool is_wide(DType dtype) {
  return is_floating(dtype) && size_of(dtype) > 1;
}

/// Where a job's encoder of that role is named, and where the set keeps it.
struct Slot {
  std::string ModelPaths::*path;
  std::optional<Part> ModelSet::*part;
};

Role role_of(TextEncoder encoder) {
  switch (encoder) {
    case TextEncoder::ClipL:
      return Role::ClipL;
    case TextEncoder::ClipH:
      return Role::ClipH;
    case TextEncoder::ClipG:
      return Role::ClipG;
    case TextEncoder::T5xxl:
      break;
  }
  return Role::T5;
}

Slot slot_of(Role role) {
  if (role == Role::ClipG) return {&ModelPaths::clip_g, &ModelSet::clip_g};
  if (role == Role::T5) return {&ModelPaths::t5xxl, &ModelSet::t5xxl};
  return {&ModelPaths::clip_l, &ModelSet::clip_l};  // CLIP-L, or SD 2's CLIP-H
}

/// Refuses an encoder that the job names and its model has no use for.
void check_unused(const ModelPaths& paths, const ModelSet& set) {
  for (const Role role : {Role::ClipL, Role::ClipG, Role::T5}) {
    const Slot slot = slot_of(role);
    if (paths.*slot.path == "" || (set.*slot.part).has_value()) continue;
    fail_file(paths.*slot.path,
              fmt::format("is of no use to {}, which is {}", paths.checkpoint, set.diffusion.row->what),
              fmt::format("leave \"{}\" out", key_of(role)));
  }
}

void check_width(const Part& diffusion, const Part& part, std::string_view gives, int given, int taken) {
  if (given == taken) return;
  fail_file(
      part.file->path(),
      fmt::format("does not belong to {}: {} {}, and that model takes {}", diffusion.file->path(), gives, given, taken),
      fmt::format("name the {} that the model was released with",
                  part.row->role == Role::Vae ? "autoencoder" : "encoder"));
}

/// Another model's merges would make tokens that the encoder lacks, or lead it astray with those that it has.
void check_tokenizer(const ModelSet& set) {
  if (set.clip_tokenizer.empty()) return;
  const std::int64_t tokens = ClipTokenizer(set.clip_tokenizer).vocabulary();
  for (const std::optional<Part>* part : {&set.clip_l, &set.clip_g}) {
    if (!*part || (*part)->clip().vocabulary == tokens) continue;
    fail_file((*part)->file->path(),
              fmt::format("does not belong to {}: it knows {} tokens, and those merges make {}", set.clip_tokenizer,
                          (*part)->clip().vocabulary, tokens),
              "name the merges that the encoder was trained with under \"tokenizers.clip\"");
  }
}

/// T5's table may have rows that no token stands for, and must have one for each piece.
void check_t5_tokenizer(const ModelSet& set) {
  if (set.t5xxl_tokenizer.empty()) return;
  const Part& part = *set.t5xxl;
  const std::int64_t pieces = T5Tokenizer(set.t5xxl_tokenizer).pieces();
  if (part.t5().vocabulary >= pieces) return;
  fail_file(part.file->path(),
            fmt::format("does not belong to {}: it knows {} tokens, and that model makes {}", set.t5xxl_tokenizer,
                        part.t5().vocabulary, pieces),
            "name the sentencepiece model that the encoder was trained with under \"tokenizers.t5xxl\"");
}

[[noreturn]] void fail_left_out(const Part& part, const std::string& name, const ModelSet& set) {
  fail_missing_tensor(*part.file, part.prefix + name,
                      fmt::format("{} reads it: name the whole encoder's file under \"{}\"", set.diffusion.row->name,
                                  key_of(part.row->role)));
}

[[noreturn]] void fail_layer_left_out(const Part& part, int layer, const ModelSet& set) {
  const ClipSizes& clip = part.clip();
  fail_left_out(part, fmt::format("{}{}.{}.weight", clip.layers_prefix, layer, clip.layer_norm), set);
}

/// Width of an encoder's pooled output: of its hidden states, or what text_projection makes of them.
int pooled_width(const Part& part, const EncoderUse& use, const ModelSet& set) {
  const ClipSizes& clip = part.clip();
  if (use.pooled != EncoderUse::Pooled::Projected) return clip.hidden;
  if (!clip.projection) fail_left_out(part, clip.projection_name, set);
  PartShapes shapes(*part.file, part.prefix);
  const bool is_linear = clip.projection_name.ends_with(".weight");
  const int out = shapes.take(clip.projection_name, 2, is_linear ? 0 : 1);
  shapes.expect(clip.projection_name,
                is_linear ? PartShapes::Shape{out, clip.hidden} : PartShapes::Shape{clip.hidden, out});
  return out;
}

/// A CLIP encoder's file may lack what its family does not read. Positions are one per token of a chunk.
void check_clip(const Part& part, const EncoderUse& use, const ModelSet& set) {
  const ClipSizes& clip = part.clip();
  if (clip.positions < kChunkTokens)
    fail_file(part.file->path(),
              fmt::format("has {} positions for tokens, and prompts take {}", clip.positions, kChunkTokens));
  const bool pools = use.pooled != EncoderUse::Pooled::None;
  if (pools && clip.layers < clip.depth) fail_layer_left_out(part, clip.layers, set);
  if ((pools || (use.context && use.norm_layer)) && !clip.final_norm)
    fail_left_out(part, clip.norm_name + ".weight", set);
}

/// The autoencoder's pictures are as large as the latents are rendered for.
void check_factor(const ModelSet& set) {
  const std::int64_t factor = set.training().latent.factor, own = set.vae.autoencoder().factor;
  if (own == factor) return;
  fail_file(set.vae.file->path(),
            fmt::format("does not belong to {}: it makes {}x{} pixels of a latent value, and that model is made for "
                        "{}x{}",
                        set.diffusion.file->path(), own, own, factor, factor),
            "name the autoencoder that the model was released with");
}

void check_flux(const ModelSet& set, const FluxSizes& flux) {
  check_width(set.diffusion, *set.clip_l, "its pooled output has width", set.clip_l->clip().hidden, flux.vector);
  check_width(set.diffusion, *set.t5xxl, "its hidden states have width", set.t5xxl->t5().hidden, flux.context);
  check_width(set.diffusion, set.vae, "its latent channels are", set.vae.autoencoder().latent_channels, flux.channels);
}

void check_unet(const ModelSet& set, const UNetSizes& unet) {
  const int l = set.clip_l ? set.clip_l->clip().hidden : 0, g = set.clip_g ? set.clip_g->clip().hidden : 0;
  const Part& last = set.clip_g ? *set.clip_g : *set.clip_l;
  const char* states =
      l > 0 && g > 0 ? "with CLIP-L's beside them its hidden states have width" : "its hidden states have width";
  check_width(set.diffusion, last, states, l + g, unet.context);
  if (unet.vector > 0)
    check_width(set.diffusion, last, "its pooled output has width", pooled_width(last, set.text().encoders.back(), set),
                unet.vector - kSizeWidth * set.diffusion.row->size_values);
  check_width(set.diffusion, set.vae, "its latent channels are", set.vae.autoencoder().latent_channels,
              unet.channels_out);
}

/// One line per file that holds what no part of it reads.
std::vector<std::string> notes_of(const ModelSet& set) {
  constexpr std::size_t kNamed = 3;
  std::vector<const Part*> parts = {&set.diffusion, &set.vae};
  for (const std::optional<Part>* encoder : {&set.clip_l, &set.clip_g, &set.t5xxl})
    if (*encoder) parts.push_back(&**encoder);
  std::vector<std::string> seen, notes;
  for (const Part* part : parts) {
    const std::string& path = part->file->path();
    if (std::ranges::find(seen, path) != seen.end()) continue;
    seen.push_back(path);
    const std::vector<std::string> names = left_over(part->file);
    if (names.empty()) continue;
    std::string list;
    for (std::size_t i = 0; i < std::min(names.size(), kNamed); ++i) list += (i > 0 ? ", " : "") + in_quotes(names[i]);
    if (names.size() > kNamed) list += fmt::format(" and {} more", names.size() - kNamed);
    notes.push_back(fmt::format("{}: {} of its tensors {} left over, no part of a model reads {}: {}", path,
                                names.size(), names.size() == 1 ? "is" : "are", names.size() == 1 ? "it" : "them",
                                list));
  }
  return notes;
}

}  // namespace

ModelSet open_models(const ModelPaths& paths) {
  const auto checkpoint = TensorFile::open(paths.checkpoint);
  const auto part = [&](const std::string& path, Role role) {
    return path.empty() ? find_own_part(checkpoint, role) : find_part(TensorFile::open(path), role);
  };
  ModelSet set;
  set.diffusion = find_part(checkpoint, Role::Diffusion);
  for (const EncoderUse& use : set.text().encoders) {
    const Role role = role_of(use.encoder);
    const Slot slot = slot_of(role);
    set.*slot.part = part(paths.*slot.path, role);
  }
  check_unused(paths, set);
  set.vae = part(paths.vae, Role::Vae);
  set.clip_tokenizer = paths.clip_tokenizer;
  if (set.t5xxl) set.t5xxl_tokenizer = paths.t5xxl_tokenizer;
  check_set(set);
  set.notes = notes_of(set);
  return set;
}

const Part& ModelSet::encoder(TextEncoder encoder) const {
  const std::optional<Part>& part = this->*slot_of(role_of(encoder)).part;
  MGPU_CHECK(part, "the set has no {}", encoder_name(encoder));
  return *part;
}

void check_set(const ModelSet& set) {
  if (set.is_flux()) {
    check_flux(set, set.diffusion.flux());
  } else {
    check_unet(set, set.diffusion.unet());
  }
  check_factor(set);
  for (const EncoderUse& use : set.text().encoders)
    if (use.encoder != TextEncoder::T5xxl) check_clip(set.encoder(use.encoder), use, set);
  check_tokenizer(set);
  check_t5_tokenizer(set);
}

void check_clip_layers(const ModelSet& set, std::int64_t clip_skip) {
  for (const EncoderUse& use : set.text().encoders) {
    if (use.encoder == TextEncoder::T5xxl || !use.context) continue;
    const Part& part = set.encoder(use.encoder);
    const ClipSizes& clip = part.clip();
    const std::int64_t layer = layer_under(use, clip_skip), from_first = layer < 0 ? clip.depth + layer : layer;
    if (from_first < 0 || from_first >= clip.depth)
      fail_file(part.file->path(),
                fmt::format("the CLIP encoder has {} layers, and layer {} was asked for", clip.depth, layer),
                "a clip_skip that passes the first layer cannot be rendered");
    if (from_first >= clip.layers) fail_layer_left_out(part, clip.layers, set);
  }
}

Weights weights_of(const Part& part, at::ScalarType dtype, at::Device device) {
  return {part.file, part.prefix, dtype, device};
}

at::ScalarType stored_type(const Part& part) {
  std::size_t widest = 0;
  at::ScalarType out = at::kBFloat16;
  for (const auto& [name, info] : part.tensors()) {
    if (!belongs(part, name) || !is_wide(info.dtype) || size_of(info.dtype) <= widest) continue;
    widest = size_of(info.dtype);
    out = scalar_type(info.dtype);
  }
  return out;
}

std::uint64_t loaded_bytes(const TensorInfo& info, at::ScalarType dtype) {
  const std::uint64_t width = is_wide(info.dtype) ? c10::elementSize(dtype) : size_of(info.dtype);
  return static_cast<std::uint64_t>(info.count()) * width;
}

std::uint64_t loaded_bytes(const Part& part, at::ScalarType dtype) {
  std::uint64_t total = 0;
  for (const auto& [name, info] : part.tensors())
    if (belongs(part, name)) total += loaded_bytes(info, dtype);
  return total;
}

void ModelSet::check_files() const {
  diffusion.file->check();
  for (const std::optional<Part>* encoder : {&clip_l, &clip_g, &t5xxl})
    if (*encoder) (*encoder)->file->check();
  vae.file->check();
}

}  // namespace mgpu
