#include "core/family.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/family_sizes.h"
#include "core/part_shapes.h"
#include "core/strings.h"
#include "core/weights.h"

namespace mgpu {
namespace {

/// What we know of a role: where its tensors' names may begin, how it is called, and what a job file calls it.
struct RoleRow {
  Role role;
  std::vector<std::string> prefixes;
  std::string_view what;
  std::string_view key;
};

/// Programs put an encoder under a name of its own and below that into "transformer." or "model.", or directly.
std::vector<std::string> encoder_prefixes(std::initializer_list<std::string_view> roots) {
  std::vector<std::string> out;
  for (const std::string_view root : roots)
    for (const char* inner : {"", "transformer.", "model."}) out.push_back(std::string(root) + inner);
  return out;
}

const RoleRow& role_row(Role role) {
  // In Role's order.
  static const std::array<RoleRow, 7> rows{{
      {Role::Diffusion,
       {"", "model.diffusion_model.", "diffusion_model.", "model.model.", "model.", "net.", "transformer.", "unet."},
       "a diffusion model",
       "checkpoint"},
      {Role::ClipL,
       encoder_prefixes({"", "text_encoders.clip_l.", "clip_l.", "cond_stage_model.", "conditioner.embedders.0.",
                         "cond_stage_model.clip_l.", "text_encoder."}),
       "a CLIP-L text encoder", "encoders.clip_l"},
      {Role::ClipG,
       encoder_prefixes({"", "text_encoders.clip_g.", "clip_g.", "conditioner.embedders.1.", "conditioner.embedders.0.",
                         "cond_stage_model.clip_g.", "text_encoder_2.", "text_encoder."}),
       "a CLIP-G text encoder", "encoders.clip_g"},
      {Role::ClipH,
       encoder_prefixes({"", "text_encoders.clip_h.", "clip_h.", "cond_stage_model.", "conditioner.embedders.0.",
                         "cond_stage_model.clip_h.", "text_encoder."}),
       "a CLIP-H text encoder", "encoders.clip_l"},
      {Role::T5,
       encoder_prefixes({"", "text_encoders.t5xxl.", "t5xxl.", "cond_stage_model.t5xxl.", "text_encoder_2.",
                         "text_encoder_3.", "text_encoders.t5.", "t5."}),
       "a T5 text encoder", "encoders.t5xxl"},
      {Role::Vae, {"", "vae.", "first_stage_model."}, "an autoencoder", "vae"},
      {Role::Other, {""}, "an adapter", ""},
  }};
  return rows[static_cast<std::size_t>(role)];
}

/// The standard deviation of a tensor's values: the one place where recognition reads data, of one small tensor.
double spread(const std::shared_ptr<const TensorFile>& file, const TensorInfo& info) {
  if (!is_floating(info.dtype)) return 0.0;
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
  if (sign.test == Sign::Test::Blocks) {
    const std::int64_t count = PartShapes(file, prefix).blocks(std::string(sign.name));
    return count >= sign.size && count <= sign.most;
  }
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
    for (const std::string& prefix : role_row(role).prefixes)
      if (fits(row, file, prefix)) return Part{file, &row, prefix, {}};
  }
  return std::nullopt;
}

std::vector<Part> match_all(const std::shared_ptr<const TensorFile>& file) {
  std::vector<Part> parts;
  for (const Role role : {Role::Diffusion, Role::ClipL, Role::ClipG, Role::ClipH, Role::T5, Role::Vae})
    if (auto part = match(file, role)) parts.push_back(*part);
  // An adapter's tensors carry the names of the model that it adapts; beside a whole model they are left over.
  const bool whole = std::ranges::any_of(parts, [](const Part& part) { return part.row->read != nullptr; });
  if (whole) return parts;
  if (auto other = match(file, Role::Other)) return {*other};
  return parts;
}

/// What a supported part is, more generally than its row says.
std::string_view kind_of(const FamilyRow& row) {
  if (row.role == Role::ClipL || row.role == Role::ClipG || row.role == Role::ClipH) return "a CLIP text encoder";
  if (row.role != Role::Diffusion) return role_row(row.role).what;
  return row.read == read_flux_sizes ? "a Flux.1 transformer" : "a Stable Diffusion UNet";
}

/// The names that make a supported part, for people.
std::string looked_for() {
  std::string text;
  for (const FamilyRow& row : family_rows()) {
    if (!row.read) continue;
    const std::string_view name = row.signs.front().name;
    if (text.find(name) != std::string::npos) continue;  // relatives share theirs
    text += fmt::format("{}{} ({})", text.empty() ? "looked for " : ", ", name, kind_of(row));
  }
  return text;
}

bool needs_tensor(const Sign& sign) {
  return sign.test == Sign::Test::Has || sign.test == Sign::Test::Dim || sign.test == Sign::Test::OtherDim;
}

/// Whether the block that `name` lies in lacks, and a later one has a tensor of that name.
bool lies_in_a_gap(const TensorFile& file, const std::string& name) {
  const std::string later = later_block(file, name);
  if (later.empty()) return false;
  const std::size_t number = later.find_last_not_of("0123456789") + 1, rest = name.find('.', number);
  return file.find(later + name.substr(rest)) != nullptr;
}

/// The tensor that is missing so that the row does not fit under that prefix, or "": the one that is, or the first of a
/// block that lacks. With `gaps_only` the former does not count; a row that has nothing else to show for itself never
/// does.
std::string missing_sign(const FamilyRow& row, const std::shared_ptr<const TensorFile>& file, const std::string& prefix,
                         bool gaps_only) {
  std::string missing;
  bool shows = false;
  for (const Sign& sign : row.signs) {
    if (holds(sign, file, prefix)) {
      shows = shows || needs_tensor(sign) || sign.test == Sign::Test::Blocks;
      continue;
    }
    const std::string name = prefix + std::string(sign.name);
    if (!needs_tensor(sign) || file->find(name)) return {};
    if (lies_in_a_gap(*file, name)) {
      shows = true;
    } else if (gaps_only || !(missing.empty() || missing == name)) {
      return {};
    }
    if (missing.empty()) missing = name;
  }
  return shows ? missing : "";
}

/// Throws Error where a supported part of that role, or of any, is there but for one tensor or block that it is known
/// by.
void check_missing_sign(const std::shared_ptr<const TensorFile>& file, std::optional<Role> role,
                        bool gaps_only = false) {
  for (const FamilyRow& row : family_rows()) {
    if (!row.read || (role && row.role != *role)) continue;
    for (const std::string& prefix : role_row(row.role).prefixes)
      if (const std::string name = missing_sign(row, file, prefix, gaps_only); !name.empty())
        fail_missing_tensor(*file, name);
  }
}

[[noreturn]] void fail_unknown(const std::shared_ptr<const TensorFile>& file) {
  check_missing_sign(file, std::nullopt);
  fail_file(file->path(), file->tensors().empty() ? "holds no tensors" : "is of no family that mgpu-render knows",
            looked_for());
}

[[noreturn]] void fail_unsupported(const Part& part) {
  fail_file(part.file->path(), fmt::format("is {}, which is not supported yet", part.row->what),
            std::string(part.row->hint));
}

/// Reads the sizes of a supported part. Throws Error naming the tensor that does not fit, or what the file is instead.
void read_part(Part& part) {
  PartShapes shapes(*part.file, part.prefix);
  try {
    part.sizes = part.row->read(shapes);
  } catch (const Error&) {
    for (const FamilyRow& row : family_rows())
      if (row.explains && fits(row, part.file, "")) fail_unsupported({part.file, &row, "", {}});
    throw;
  }
  part.reads = std::make_shared<const TensorMap>(shapes.take_tensors());
}

/// The part of that role, with its sizes. Throws Error when it is not supported.
std::optional<Part> part_of(const std::vector<Part>& parts, Role role) {
  for (Part part : parts) {
    if (part.row->role != role) continue;
    if (!part.row->read) {
      check_missing_sign(part.file, role, /*gaps_only=*/true);
      fail_unsupported(part);
    }
    read_part(part);
    return part;
  }
  return std::nullopt;
}

/// What files hold beside the parts that we read, and nothing is lost by: buffers that follow from the architecture,
/// the training's own tables and averaged weights, towers and heads that no text is encoded with. `*` stands for
/// anything at either end.
constexpr std::string_view kHarmless[] = {
    "*position_ids", "*attn_mask", "*logit_scale", "*logit_bias", "*scaled_fp8", "*text_projection",
    "*text_projection.weight", "*visual_projection.weight", "*vision_model.*", "*visual.*", "*pooler.*",
    // Stable Diffusion's training, and marks that recognition reads.
    "model_ema.*", "*model_ema.decay", "*model_ema.num_updates", "betas", "alphas_cumprod*", "sqrt_*", "posterior_*",
    "log_one_minus_alphas_cumprod", "lvlb_weights", "logvar", "scale_factor", "denoiser.*", "global_step", "v_pred",
    "ztsnr", "loss.*", "*.loss.*",
    // T5: the decoder of the whole model, the embedding under its other name, the tokenizer's model.
    "*decoder.block.*", "*decoder.final_layer_norm.weight", "*decoder.embed_tokens.weight", "*lm_head.weight",
    "*encoder.embed_tokens.weight", "*shared.weight", "*spiece_model",
    // An autoencoder without its encoder; ComfyUI's scale and shift of a tiny one's latents, which the model's row has.
    "*quant_conv.weight", "*quant_conv.bias", "vae_scale", "vae_shift"};

bool is_harmless(std::string_view name) {
  return std::ranges::any_of(kHarmless, [&](std::string_view pattern) {
    const bool from = pattern.starts_with('*'), to = pattern.ends_with('*');
    if (from) pattern.remove_prefix(1);
    if (to) pattern.remove_suffix(1);
    if (from && to) return name.find(pattern) != name.npos;
    if (from) return name.ends_with(pattern);
    return to ? name.starts_with(pattern) : name == pattern;
  });
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
  if (parts.empty()) fail_unknown(file);
  for (Part& part : parts)
    if (part.row->read) read_part(part);
  return parts;
}

Part find_part(const std::shared_ptr<const TensorFile>& file, Role role) {
  const std::vector<Part> parts = match_all(file);
  if (parts.empty()) fail_unknown(file);
  if (auto part = part_of(parts, role)) return *part;
  const FamilyRow& first = *parts.front().row;
  if (first.role == Role::Other) fail_unsupported(parts.front());
  check_missing_sign(file, role);
  const std::string_view key = role_row(first.role).key;
  fail_file(file->path(), fmt::format("is {}, not {}", first.what, role_row(role).what),
            key == role_row(role).key ? fmt::format("\"{}\" is {} for this checkpoint", key, role_row(role).what)
                                      : fmt::format("it belongs under \"{}\"", key));
}

Part find_own_part(const std::shared_ptr<const TensorFile>& checkpoint, Role role) {
  if (auto part = part_of(match_all(checkpoint), role)) return *part;
  check_missing_sign(checkpoint, role);
  fail_file(checkpoint->path(), fmt::format("does not hold {}", role_row(role).what),
            fmt::format("name one under \"{}\"", role_row(role).key));
}

std::vector<std::string> left_over(const std::shared_ptr<const TensorFile>& file) {
  std::vector<Part> parts = match_all(file);
  std::vector<std::string> unread;  // prefixes of parts of which we do not know what they read
  for (Part& part : parts) {
    try {
      if (part.row->read) read_part(part);
    } catch (const Error&) {
      // Who uses the part is told.
    }
    if (!part.reads) unread.push_back(part.prefix);
  }
  std::vector<std::string> out;
  for (const auto& entry : file->tensors()) {
    const std::string& name = entry.first;
    const auto reads = [&](const Part& part) { return part.reads && part.reads->contains(name); };
    const auto holds_it = [&](const std::string& prefix) { return name.starts_with(prefix); };
    if (std::ranges::any_of(parts, reads) || std::ranges::any_of(unread, holds_it) || is_harmless(name)) continue;
    out.push_back(name);
  }
  return out;
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
  for (const auto& [name, info] : part.tensors()) {
    if (!name.starts_with(part.prefix)) continue;
    const std::string dtype(info.type_name());
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
