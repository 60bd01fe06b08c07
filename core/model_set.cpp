#include "core/model_set.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/error.h"
#include "core/text/clip_tokenizer.h"

namespace mgpu {
namespace {

constexpr int kSizeWidth = 256;  // of one number's embedding in SDXL's vector

bool belongs(const Part& part, std::string_view name) {
  return name.starts_with(part.prefix);
}

bool is_floating(DType dtype) {
  return dtype == DType::F64 || dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16;
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
    check_width(set.diffusion, last, "its pooled output has width", g,
                unet.vector - kSizeWidth * set.diffusion.row->size_values);
  check_width(set.diffusion, set.vae, "its latent channels are", set.vae.autoencoder().latent_channels,
              unet.channels_out);
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
  check_tokenizer(set);
}

Weights weights_of(const Part& part, at::ScalarType dtype, at::Device device) {
  return {part.file, part.prefix, dtype, device};
}

at::ScalarType stored_type(const Part& part) {
  std::size_t widest = 0;
  at::ScalarType out = at::kBFloat16;
  for (const auto& [name, info] : part.file->tensors()) {
    if (!belongs(part, name) || !is_floating(info.dtype) || size_of(info.dtype) <= widest) continue;
    widest = size_of(info.dtype);
    out = scalar_type(info.dtype);
  }
  return out;
}

std::uint64_t loaded_bytes(const TensorInfo& info, at::ScalarType dtype) {
  const std::uint64_t width = is_floating(info.dtype) ? c10::elementSize(dtype) : size_of(info.dtype);
  return static_cast<std::uint64_t>(info.count()) * width;
}

std::uint64_t loaded_bytes(const Part& part, at::ScalarType dtype) {
  std::uint64_t total = 0;
  for (const auto& [name, info] : part.file->tensors())
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
