#include "core/family.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/family_tables.h"
#include "core/part_shapes.h"
#include "core/strings.h"
#include "core/weights.h"

namespace mgpu {
namespace {

std::deque<FamilyRow>& table() {
  static std::deque<FamilyRow> rows;
  return rows;
}

/// The roles that rows have, in the order in which they first come.
std::vector<const Role*> roles() {
  std::vector<const Role*> out;
  for (const FamilyRow& row : family_rows())
    if (std::ranges::find(out, row.role) == out.end()) out.push_back(row.role);
  return out;
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
std::optional<Part> match(const std::shared_ptr<const TensorFile>& file, const Role& role) {
  for (const FamilyRow& row : family_rows()) {
    if (row.role != &role) continue;
    for (const std::string& prefix : role.prefixes)
      if (fits(row, file, prefix)) return Part{file, &row, prefix, {}};
  }
  return std::nullopt;
}

std::vector<Part> match_all(const std::shared_ptr<const TensorFile>& file) {
  std::vector<Part> parts;
  for (const Role* role : roles())
    if (role != &kOtherRole)
      if (auto part = match(file, *role)) parts.push_back(*part);
  // An adapter's tensors carry the names of the model that it adapts; beside a whole model they are left over.
  const bool whole = std::ranges::any_of(parts, [](const Part& part) { return part.row->model != nullptr; });
  if (whole) return parts;
  if (auto other = match(file, kOtherRole)) return {*other};
  return parts;
}

/// The names that make a supported part, for people.
std::string looked_for() {
  std::string text;
  for (const FamilyRow& row : family_rows()) {
    if (!row.model) continue;
    const std::string_view name = row.signs.front().name;
    if (text.find(name) != std::string::npos) continue;  // relatives share theirs
    text += fmt::format("{}{} ({})", text.empty() ? "looked for " : ", ", name, row.model->kind());
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
void check_missing_sign(const std::shared_ptr<const TensorFile>& file, const Role* role, bool gaps_only = false) {
  for (const FamilyRow& row : family_rows()) {
    if (!row.model || (role && row.role != role)) continue;
    for (const std::string& prefix : row.role->prefixes)
      if (const std::string name = missing_sign(row, file, prefix, gaps_only); !name.empty())
        fail_missing_tensor(*file, name);
  }
}

[[noreturn]] void fail_unknown(const std::shared_ptr<const TensorFile>& file) {
  check_missing_sign(file, nullptr);
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
    part.sizes = part.row->model->read(shapes);
  } catch (const Error&) {
    for (const FamilyRow& row : family_rows())
      if (row.explains && fits(row, part.file, "")) fail_unsupported({part.file, &row, "", {}});
    throw;
  }
  part.reads = std::make_shared<const TensorMap>(shapes.take_tensors());
}

/// The part of that role, with its sizes. Throws Error when it is not supported.
std::optional<Part> part_of(const std::vector<Part>& parts, const Role& role) {
  for (Part part : parts) {
    if (part.row->role != &role) continue;
    if (!part.row->model) {
      check_missing_sign(part.file, &role, /*gaps_only=*/true);
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

}  // namespace

const Role kDiffusionRole{
    "a diffusion model",
    "checkpoint",
    {"", "model.diffusion_model.", "diffusion_model.", "model.model.", "model.", "net.", "transformer.", "unet."}};
const Role kVaeRole{"an autoencoder", "vae", {"", "vae.", "first_stage_model."}};
const Role kOtherRole{"an adapter", "", {""}};

std::vector<FamilyRow> joined(std::initializer_list<std::vector<FamilyRow>> tables) {
  std::vector<FamilyRow> out;
  for (const std::vector<FamilyRow>& rows : tables) out.insert(out.end(), rows.begin(), rows.end());
  return out;
}

AddedFamilies::AddedFamilies(std::vector<FamilyRow> rows) : count_(rows.size()) {
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) table().push_front(std::move(*row));
}

AddedFamilies::~AddedFamilies() {
  for (std::size_t i = 0; i < count_; ++i) table().pop_front();
}

const std::deque<FamilyRow>& family_rows() {
  MGPU_CHECK(!table().empty(), "no families are registered: main() calls register_families()");
  return table();
}

std::vector<Part> recognise(const std::shared_ptr<const TensorFile>& file) {
  std::vector<Part> parts = match_all(file);
  if (parts.empty()) fail_unknown(file);
  for (Part& part : parts)
    if (part.row->model) read_part(part);
  return parts;
}

Part find_part(const std::shared_ptr<const TensorFile>& file, const Role& role) {
  const std::vector<Part> parts = match_all(file);
  if (parts.empty()) fail_unknown(file);
  if (auto part = part_of(parts, role)) return *part;
  const FamilyRow& first = *parts.front().row;
  if (first.role == &kOtherRole) fail_unsupported(parts.front());
  check_missing_sign(file, &role);
  const std::string_view key = first.role->key;
  fail_file(file->path(), fmt::format("is {}, not {}", first.what, role.what),
            key == role.key ? fmt::format("\"{}\" is {} for this checkpoint", key, role.what)
                            : fmt::format("it belongs under \"{}\"", key));
}

Part find_own_part(const std::shared_ptr<const TensorFile>& checkpoint, const Role& role) {
  if (auto part = part_of(match_all(checkpoint), role)) return *part;
  check_missing_sign(checkpoint, &role);
  fail_file(checkpoint->path(), fmt::format("does not hold {}", role.what),
            fmt::format("name one under \"{}\"", role.key));
}

std::vector<std::string> left_over(const std::shared_ptr<const TensorFile>& file) {
  std::vector<Part> parts = match_all(file);
  std::vector<std::string> unread;  // prefixes of parts of which we do not know what they read
  for (Part& part : parts) {
    try {
      if (part.row->model) read_part(part);
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

PartSummary summarise(const Part& part) {
  PartSummary summary;
  summary.what = part.row->what;
  summary.supported = part.row->model != nullptr;
  summary.prefix = part.prefix;
  summary.blocks = part.blocks();
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
