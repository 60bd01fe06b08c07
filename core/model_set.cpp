#include "core/model_set.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/autoencoder_model.h"
#include "core/error.h"
#include "core/models/diffusion_model.h"
#include "core/quantisation.h"
#include "core/strings.h"
#include "core/text/text_encoder.h"
#include "core/weight_patches.h"

namespace mgpu {
namespace {

bool belongs(const Part& part, std::string_view name) {
  return name.starts_with(part.prefix);
}

/// Floating point of more than 8 bits.
bool is_wide(DType dtype) {
  return is_floating(dtype) && size_of(dtype) > 1;
}

/// Refuses an encoder that the job names and its model has no use for.
void check_unused(const ModelPaths& paths, const ModelSet& set) {
  for (const TextEncoderModel* encoder : text_encoders()) {
    const auto path = paths.encoders.find(encoder->key());
    if (path == paths.encoders.end() || path->second.empty() || set.has_encoder(encoder->key())) continue;
    fail_file(path->second, fmt::format("is of no use to {}, which is {}", paths.checkpoint, set.diffusion.row->what),
              fmt::format("leave \"{}\" out", encoder->role().key));
  }
}

/// The autoencoder's pictures are as large as the latents are rendered for.
void check_factor(const ModelSet& set) {
  const std::int64_t factor = set.training().latent.factor, own = autoencoder(set.vae).facts(set.vae).factor;
  if (own == factor) return;
  fail_file(set.vae.file->path(),
            fmt::format("does not belong to {}: it makes {}x{} pixels of a latent value, and that model is made for "
                        "{}x{}",
                        set.diffusion.file->path(), own, own, factor, factor),
            "name the autoencoder that the model was released with");
}

/// One line per file that holds what no part of it reads.
std::vector<std::string> notes_of(const ModelSet& set) {
  constexpr std::size_t kNamed = 3;
  std::vector<std::string> seen, notes;
  for (const Part* part : set.parts()) {
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
  const auto part = [&](const std::string& path, const Role& role) {
    return path.empty() ? find_own_part(checkpoint, role) : find_part(TensorFile::open(path), role);
  };
  const auto named = [](const auto& files, std::string_view key) {
    const auto found = files.find(key);
    return found == files.end() ? std::string() : found->second;
  };
  ModelSet set;
  set.diffusion = find_part(checkpoint, kDiffusionRole);
  for (const EncoderUse& use : set.text().encoders) {
    set.encoders.push_back(part(named(paths.encoders, use.encoder->key()), use.encoder->role()));
    if (const TokenizerData* data = use.encoder->names().tokenizer)
      set.tokenizers.emplace(data->key, named(paths.tokenizers, data->key));
  }
  check_unused(paths, set);
  set.vae = part(paths.vae, kVaeRole);
  check_set(set);
  set.notes = notes_of(set);
  return set;
}

std::vector<const Part*> ModelSet::parts() const {
  std::vector<const Part*> out{&diffusion};
  for (const Part& part : encoders) out.push_back(&part);
  out.push_back(&vae);
  return out;
}

bool ModelSet::has_encoder(std::string_view key) const {
  return std::ranges::any_of(encoders, [&](const Part& part) { return text_encoder(part).key() == key; });
}

const Part& ModelSet::encoder(std::string_view key) const {
  const auto part = std::ranges::find_if(encoders, [&](const Part& p) { return text_encoder(p).key() == key; });
  MGPU_CHECK(part != encoders.end(), "the set has no {}", key);
  return *part;
}

const std::string& ModelSet::tokenizer_of(const TextEncoderModel& encoder) const {
  return tokenizer(encoder.names().tokenizer ? encoder.names().tokenizer->key : std::string_view());
}

const std::string& ModelSet::tokenizer(std::string_view key) const {
  static const std::string none;
  const auto found = tokenizers.find(key);
  return found == tokenizers.end() ? none : found->second;
}

void check_set(const ModelSet& set) {
  diffusion_model(set.diffusion).check(set);
  check_width(set, set.vae, "its latent channels are", autoencoder(set.vae).facts(set.vae).latent_channels,
              static_cast<int>(set.training().latent.channels));
  check_factor(set);
  const std::span<const EncoderUse> uses = set.text().encoders;
  for (std::size_t i = 0; i < uses.size(); ++i) uses[i].encoder->check(set.encoders[i], uses[i], set);
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const std::string& data = set.tokenizer_of(*uses[i].encoder);
    if (!data.empty()) uses[i].encoder->check_tokenizer(set.encoders[i], data);
  }
}

void check_width(const ModelSet& set, const Part& part, std::string_view gives, int given, int taken) {
  if (given == taken) return;
  fail_file(part.file->path(),
            fmt::format("does not belong to {}: {} {}, and that model takes {}", set.diffusion.file->path(), gives,
                        given, taken),
            fmt::format("name the {} that the model was released with",
                        part.row->role == &kVaeRole ? "autoencoder" : "encoder"));
}

void check_clip_layers(const ModelSet& set, std::int64_t clip_skip) {
  const std::span<const EncoderUse> uses = set.text().encoders;
  for (std::size_t i = 0; i < uses.size(); ++i)
    if (uses[i].context) uses[i].encoder->check_layer(set.encoders[i], uses[i], clip_skip, set);
}

Weights weights_of(const Part& part, at::ScalarType dtype, at::Device device) {
  return {part.file, part.prefix, dtype, device, part.patches};
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

std::uint64_t loaded_bytes(const Part& part, std::string_view name, const TensorInfo& info, at::ScalarType dtype) {
  if (part.patches && part.patches->touches(name)) {
    std::uint64_t bytes = c10::elementSize(dtype);
    for (const std::int64_t size : stored_weight(*part.file, name, info).shape)
      bytes *= static_cast<std::uint64_t>(size);
    return bytes;
  }
  // One scale per row stays as it is stored.
  if (info.packing || (is_weight_companion(name) && info.count() > 1)) return info.bytes();
  const std::uint64_t width = is_wide(info.dtype) ? c10::elementSize(dtype) : size_of(info.dtype);
  return static_cast<std::uint64_t>(info.count()) * width;
}

std::uint64_t loaded_bytes(const Part& part, at::ScalarType dtype) {
  std::uint64_t total = 0;
  for (const auto& [name, info] : part.tensors())
    if (belongs(part, name)) total += loaded_bytes(part, name, info, dtype);
  return total;
}

void ModelSet::check_files() const {
  for (const Part* part : parts()) part->file->check();
}

}  // namespace mgpu
