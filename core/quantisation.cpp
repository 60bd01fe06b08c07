#include "core/quantisation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/packing.h"
#include "core/strings.h"

namespace mgpu {
namespace {

using nlohmann::json;

constexpr std::string_view kMetadata = "_quantization_metadata";

/// The scale that ComfyUI writes beside an element-wise weight, or null: one number, or one per row as [rows] or
/// [rows, 1].
const TensorInfo* find_scale(const TensorFile& file, const std::string& layer, std::int64_t rows) {
  for (const char* spelling : {"scale_weight", "weight_scale"}) {
    const TensorInfo* info = file.find(layer + spelling);
    if (!info) continue;
    const bool is_one_per_row =
        info->count() == rows && !info->shape.empty() && info->shape.front() == rows && info->shape.size() <= 2;
    if (info->count() != 1 && !is_one_per_row)
      fail_file(file.path(), fmt::format("tensor {} has shape {}: one scale per weight or per row ({}) is supported",
                                         in_quotes(layer + spelling), shape_text(info->shape), rows));
    if (!is_floating(info->dtype))
      fail_file(file.path(), fmt::format("tensor {} has type {}: a scale of this type is not supported yet",
                                         in_quotes(layer + spelling), info->type_name()));
    return info;
  }
  return nullptr;
}

bool is_float8(DType dtype) {
  return is_floating(dtype) && size_of(dtype) == 1;
}

/// fp8, and any weight that nothing describes: elements, with the scales that there are.
void read_elements(const TensorFile& file, const std::string& layer, const json&, StoredWeight& weight) {
  const std::int64_t rows = weight.shape.empty() ? 1 : weight.shape.front();
  const TensorInfo* scale = find_scale(file, layer, rows);
  if (scale && scale->count() == 1) weight.scale = scale;
  if (scale && scale->count() != 1) weight.scales = {scale};
  if (scale || is_float8(weight.info->dtype)) weight.packing = &element_packing();
}

constexpr std::array<QuantFormat, 2> kFormats = {{{"float8_e4m3fn", read_elements}, {"float8_e5m2", read_elements}}};

/// The descriptions of all layers in the file's metadata, by their names; empty when there are none.
json described_layers(const TensorFile& file) {
  const auto text = file.metadata().find(kMetadata);
  if (text == file.metadata().end()) return json::object();
  const json all = json::parse(text->second, nullptr, false);
  if (!all.is_object() || !all.contains("layers") || !all["layers"].is_object())
    fail_file(file.path(), fmt::format("its metadata \"{}\" is not a quantisation's description", kMetadata));
  return all["layers"];
}

/// What the file's metadata says of a layer ("a.b."), or nothing.
std::optional<json> in_metadata(const TensorFile& file, std::string_view layer) {
  if (!file.metadata().contains(kMetadata)) return std::nullopt;
  // Each of a file's hundreds of weights asks: the text is parsed once per file.
  struct Parsed {
    std::string header;
    json layers;
  };
  static thread_local Parsed parsed;
  if (parsed.header != file.header_sha256()) parsed = {file.header_sha256(), described_layers(file)};
  if (layer.ends_with('.')) layer.remove_suffix(1);
  const auto described = parsed.layers.find(std::string(layer));
  return described == parsed.layers.end() ? std::nullopt : std::optional<json>(*described);
}

/// What the layer's own tensor says, or nothing; a value that is no description when its text is no JSON.
std::optional<json> in_tensor(const TensorFile& file, const std::string& layer) {
  const TensorInfo* tensor = file.find(layer + "comfy_quant");
  if (!tensor) return std::nullopt;
  const auto bytes = file.bytes(*tensor);
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  return json::parse(text, text + bytes.size(), nullptr, false);
}

/// The format that a description names. `place` is where the description stands.
const QuantFormat& named_format(const TensorFile& file, const std::string& place, std::string_view weight,
                                const json& description) {
  if (!description.is_object() || !description.contains("format") || !description["format"].is_string())
    fail_file(file.path(), fmt::format("{} is not a quantisation's description", place));
  const auto name = description["format"].get<std::string>();
  const auto* const format = std::ranges::find(kFormats, name, &QuantFormat::name);
  if (format == kFormats.end())
    fail_file(
        file.path(),
        fmt::format("tensor {} is quantised as {}, which is not supported yet", in_quotes(weight), in_quotes(name)),
        "use the model's fp8 or bf16 release");
  return *format;
}

}  // namespace

bool StoredWeight::is_narrow() const {
  std::int64_t values = 1;
  for (const std::int64_t size : shape) values *= size;
  return packing && info->bytes() <= static_cast<std::uint64_t>(values);
}

std::span<const std::string_view> weight_companions() {
  static constexpr std::array<std::string_view, 5> kNames = {"scale_weight", "weight_scale", "scale_input",
                                                             "input_scale", "comfy_quant"};
  return kNames;
}

bool is_weight_companion(std::string_view name) {
  return std::ranges::any_of(weight_companions(), [&](std::string_view last) {
    return name == last || (name.ends_with(last) && name[name.size() - last.size() - 1] == '.');
  });
}

std::string_view layer_of(std::string_view name) {
  constexpr std::string_view kWeight = "weight";
  if (!name.ends_with(kWeight)) return {};
  name.remove_suffix(kWeight.size());
  return name.empty() || name.ends_with('.') ? name : std::string_view{};
}

StoredWeight stored_weight(const TensorFile& file, std::string_view name, const TensorInfo& info) {
  StoredWeight out{.info = &info, .shape = info.shape, .payload_shape = info.shape};
  if (info.packing) {
    out.packing = info.packing;
    out.payload_shape = info.packing->byte_shape(info);
    return out;
  }
  if (name != "weight" && layer_of(name).empty()) {
    if (is_float8(info.dtype)) out.packing = &element_packing();
    return out;
  }
  const std::string layer(layer_of(name));
  const std::optional<json> listed = in_metadata(file, layer), own = in_tensor(file, layer);
  const QuantFormat* format = nullptr;
  if (own) format = &named_format(file, fmt::format("tensor {}", in_quotes(layer + "comfy_quant")), name, *own);
  // Of two descriptions that of the metadata holds, as in ComfyUI.
  if (listed) format = &named_format(file, fmt::format("its metadata \"{}\"", kMetadata), name, *listed);
  // AWQ: the layer's input is multiplied first.
  if (file.find(layer + "pre_quant_scale"))
    fail_file(file.path(),
              fmt::format("tensor {} has a scale for its input ({}), which is not supported yet", in_quotes(name),
                          in_quotes(layer + "pre_quant_scale")),
              "use the model's fp8 or bf16 release");
  if (format) {
    format->read(file, layer, listed ? *listed : *own, out);
  } else {
    read_elements(file, layer, nullptr, out);
  }
  return out;
}

}  // namespace mgpu
