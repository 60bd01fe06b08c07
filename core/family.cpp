#include "core/family.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/family_sizes.h"
#include "core/strings.h"
#include "core/weights.h"

namespace mgpu {
namespace {

/// What we know of a role: where its tensors' names may begin, how it is called, and what a job file calls it.
struct RoleRow {
  Role role;
  std::vector<std::string_view> prefixes;
  std::string_view what;
  std::string_view key;
};

const RoleRow& role_row(Role role) {
  // In Role's order.
  static const std::array<RoleRow, 7> rows{{
      {Role::Diffusion,
       {"", "model.diffusion_model.", "model.model.", "model.", "net."},
       "a diffusion model",
       "checkpoint"},
      {Role::ClipL,
       {"", "text_encoders.clip_l.transformer.", "text_encoders.clip_l.", "cond_stage_model.transformer.",
        "conditioner.embedders.0.transformer."},
       "a CLIP-L text encoder",
       "encoders.clip_l"},
      {Role::ClipG,
       {"", "text_encoders.clip_g.transformer.", "text_encoders.clip_g.", "conditioner.embedders.1.model.",
        "conditioner.embedders.0.model."},
       "a CLIP-G text encoder",
       "encoders.clip_g"},
      {Role::ClipH,
       {"", "text_encoders.clip_h.transformer.", "text_encoders.clip_h.", "cond_stage_model.model.",
        "conditioner.embedders.0.model."},
       "a CLIP-H text encoder",
       "encoders.clip_l"},
      {Role::T5,
       {"", "text_encoders.t5xxl.transformer.", "text_encoders.t5xxl."},
       "a T5 text encoder",
       "encoders.t5xxl"},
      {Role::Vae, {"", "vae.", "first_stage_model."}, "an autoencoder", "vae"},
      {Role::Other, {""}, "an adapter", ""},
  }};
  return rows[static_cast<std::size_t>(role)];
}

/// The standard deviation of a tensor's values: the one place where recognition reads data, of one small tensor.
double spread(const std::shared_ptr<const TensorFile>& file, const TensorInfo& info) {
  return mapped_tensor(file, info).to(at::kFloat).std(/*unbiased=*/false).item<double>();
}

bool holds(const Sign& sign, const std::shared_ptr<const TensorFile>& shared, const std::string& prefix) {
  const TensorFile& file = *shared;
  if (sign.test == Sign::Test::InFile) return file.find(sign.name) != nullptr;
  if (sign.test == Sign::Test::NotInFile) return file.find(sign.name) == nullptr;
  if (sign.test == Sign::Test::AnyEndsWith)
    return std::any_of(file.tensors().begin(), file.tensors().end(), [&](const auto& entry) {
      return entry.first.starts_with(prefix) && entry.first.ends_with(sign.name);
    });
  const TensorInfo* info = file.find(prefix + std::string(sign.name));
  if (sign.test == Sign::Test::Lacks) return info == nullptr;
  if (info == nullptr) return false;
  if (sign.test == Sign::Test::Has) return true;
  if (sign.test == Sign::Test::Spread) return spread(shared, *info) > sign.bound;
  const bool equal = sign.axis < info->shape.size() && info->shape[sign.axis] == sign.size;
  return equal == (sign.test == Sign::Test::Dim);
}

bool fits(const FamilyRow& row, const std::shared_ptr<const TensorFile>& file, const std::string& prefix) {
  return std::all_of(row.signs.begin(), row.signs.end(), [&](const Sign& sign) { return holds(sign, file, prefix); });
}

/// The first row of that role that fits under any of its prefixes; no sizes yet.
std::optional<Part> match(const std::shared_ptr<const TensorFile>& file, Role role) {
  for (const FamilyRow& row : family_rows()) {
    if (row.role != role) continue;
    for (const std::string_view prefix : role_row(role).prefixes)
      if (fits(row, file, std::string(prefix))) return Part{file, &row, std::string(prefix), {}};
  }
  return std::nullopt;
}

std::vector<Part> match_all(const std::shared_ptr<const TensorFile>& file) {
  // An adapter's tensors carry the names of the model that it adapts.
  if (auto other = match(file, Role::Other)) return {*other};
  std::vector<Part> parts;
  for (const Role role : {Role::Diffusion, Role::ClipL, Role::ClipG, Role::ClipH, Role::T5, Role::Vae})
    if (auto part = match(file, role)) parts.push_back(*part);
  return parts;
}

/// What a supported part is, more generally than its row says.
std::string_view kind_of(const FamilyRow& row) {
  if (row.role != Role::Diffusion) return role_row(row.role).what;
  return row.read == read_flux_sizes ? "a Flux.1 transformer" : "a Stable Diffusion UNet";
}

/// The names that make a supported part of `role`, or of any role, for people.
std::string looked_for(std::optional<Role> role) {
  std::string text;
  for (const FamilyRow& row : family_rows()) {
    if (!row.read || (role && row.role != *role)) continue;
    const std::string_view name = row.signs.front().name;
    if (text.find(name) != std::string::npos) continue;  // relatives share theirs
    text += fmt::format("{}{} ({})", text.empty() ? "looked for " : ", ", name, kind_of(row));
  }
  return text;
}

[[noreturn]] void fail_unknown(const TensorFile& file) {
  fail_file(file.path(), file.tensors().empty() ? "holds no tensors" : "is of no family that mgpu-render knows",
            looked_for(std::nullopt));
}

[[noreturn]] void fail_unsupported(const Part& part) {
  fail_file(part.file->path(), fmt::format("is {}, which is not supported yet", part.row->what),
            std::string(part.row->hint));
}

/// The part of that role, with its sizes. Throws Error when it is not supported.
std::optional<Part> part_of(const std::vector<Part>& parts, Role role) {
  for (Part part : parts) {
    if (part.row->role != role) continue;
    if (!part.row->read) fail_unsupported(part);
    part.sizes = part.row->read(*part.file, part.prefix);
    return part;
  }
  return std::nullopt;
}

std::vector<std::pair<std::string, int>> blocks_of(const Sizes& sizes) {
  struct Visitor {
    using Blocks = std::vector<std::pair<std::string, int>>;
    Blocks operator()(const std::monostate&) const { return {}; }
    Blocks operator()(const FluxSizes& flux) const { return {{"double", flux.depth}, {"single", flux.depth_single}}; }
    Blocks operator()(const UNetSizes& unet) const {
      const int ways = static_cast<int>(unet.down.size());
      return {{"down", ways}, {"middle", unet.middle_residuals > 0 ? 1 : 0}, {"up", ways}};
    }
    Blocks operator()(const ClipSizes& clip) const { return {{"layer", clip.layers}}; }
    Blocks operator()(const T5Sizes& t5) const { return {{"layer", t5.layers}}; }
    Blocks operator()(const VaeSizes& vae) const { return {{"level", static_cast<int>(vae.channels.size())}}; }
    Blocks operator()(const TinyVaeSizes& vae) const {
      return {{"level", static_cast<int>(vae.decoder.blocks.size())}};
    }
  };
  return std::visit(Visitor{}, sizes);
}

}  // namespace

AutoencoderFacts Part::autoencoder() const {
  if (is_tiny_vae()) {
    const TinyVaeSizes& tiny = tiny_vae();
    return {tiny.latent_channels, tiny.factor(), static_cast<int>(tiny.decoder.blocks.size()),
            !tiny.encoder.blocks.empty()};
  }
  return {vae().latent_channels, vae().factor(), static_cast<int>(vae().channels.size()), vae().encoder};
}

std::vector<Part> recognise(const std::shared_ptr<const TensorFile>& file) {
  std::vector<Part> parts = match_all(file);
  if (parts.empty()) fail_unknown(*file);
  for (Part& part : parts)
    if (part.row->read) part.sizes = part.row->read(*file, part.prefix);
  return parts;
}

Part find_part(const std::shared_ptr<const TensorFile>& file, Role role) {
  const std::vector<Part> parts = match_all(file);
  if (parts.empty()) fail_unknown(*file);
  if (auto part = part_of(parts, role)) return *part;
  const FamilyRow& first = *parts.front().row;
  if (first.role == Role::Other) fail_unsupported(parts.front());
  const std::string_view key = role_row(first.role).key;
  fail_file(file->path(), fmt::format("is {}, not {}", first.what, role_row(role).what),
            key == role_row(role).key ? fmt::format("\"{}\" is {} for this checkpoint", key, role_row(role).what)
                                      : fmt::format("it belongs under \"{}\"", key));
}

Part find_own_part(const std::shared_ptr<const TensorFile>& checkpoint, Role role) {
  if (auto part = part_of(match_all(checkpoint), role)) return *part;
  fail_file(checkpoint->path(), fmt::format("does not hold {}", role_row(role).what),
            fmt::format("name one under \"{}\"", role_row(role).key));
}

std::string_view key_of(Role role) {
  return role_row(role).key;
}

std::string_view what_is(Role role) {
  return role_row(role).what;
}

PartSummary summarise(const Part& part) {
  PartSummary summary;
  summary.what = part.row->what;
  summary.supported = part.row->read != nullptr;
  summary.prefix = part.prefix;
  summary.blocks = blocks_of(part.sizes);
  bool scaled = false;
  std::string eight_bit;
  for (const auto& [name, info] : part.file->tensors()) {
    if (!name.starts_with(part.prefix)) continue;
    const std::string dtype(name_of(info.dtype));
    ++summary.tensors;
    summary.bytes += info.bytes();
    summary.dtypes[dtype] += info.bytes();
    scaled = scaled || name.ends_with(".scale_weight") || name.ends_with(".weight_scale");
    const bool weight = name.ends_with("weight") && info.bytes() > 0;
    if (weight && (info.dtype == DType::F8_E4M3 || info.dtype == DType::F8_E5M2)) eight_bit = dtype;
  }
  summary.quantisation = eight_bit.empty() ? "none" : fmt::format("fp8 ({}){}", eight_bit, scaled ? ", scaled" : "");
  return summary;
}

}  // namespace mgpu
