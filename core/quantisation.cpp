#include "core/quantisation.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/strings.h"

namespace mgpu {
namespace {

using nlohmann::json;

constexpr std::string_view kMetadata = "_quantization_metadata";

/// Refuses a weight whose description names another format than plain fp8. `what` is where the description stands.
void check_description(const TensorFile& file, const std::string& what, std::string_view weight, const json& layer) {
  if (!layer.is_object() || !layer.contains("format") || !layer["format"].is_string())
    fail_file(file.path(), fmt::format("{} is not a quantisation's description", what));
  const auto format = layer["format"].get<std::string>();
  if (format != "float8_e4m3fn" && format != "float8_e5m2")
    fail_file(
        file.path(),
        fmt::format("tensor {} is quantised as {}, which is not supported yet", in_quotes(weight), in_quotes(format)),
        "use the model's fp8 or bf16 release");
}

/// The descriptions of all layers in the file's metadata, by their names; empty where there are none.
json described_layers(const TensorFile& file) {
  const auto text = file.metadata().find(kMetadata);
  if (text == file.metadata().end()) return json::object();
  const json all = json::parse(text->second, nullptr, false);
  if (!all.is_object() || !all.contains("layers") || !all["layers"].is_object())
    fail_file(file.path(), fmt::format("its metadata \"{}\" is not a quantisation's description", kMetadata));
  return all["layers"];
}

void check_metadata(const TensorFile& file, std::string_view layer, std::string_view weight) {
  if (!file.metadata().contains(kMetadata)) return;
  // A weight asks once, a file has hundreds: the text is parsed once per file.
  struct Parsed {
    std::string header;
    json layers;
  };
  static thread_local Parsed parsed;
  if (parsed.header != file.header_sha256()) parsed = {file.header_sha256(), described_layers(file)};
  const auto described = parsed.layers.find(std::string(layer.substr(0, layer.empty() ? 0 : layer.size() - 1)));
  if (described == parsed.layers.end()) return;
  check_description(file, fmt::format("its metadata \"{}\"", kMetadata), weight, *described);
}

void check_quantisation(const TensorFile& file, const std::string& layer, std::string_view weight) {
  check_metadata(file, layer, weight);
  if (const TensorInfo* mark = file.find(layer + "comfy_quant")) {
    const auto bytes = file.bytes(*mark);
    const auto* text = reinterpret_cast<const char*>(bytes.data());
    const std::string what = fmt::format("tensor {}", in_quotes(layer + "comfy_quant"));
    check_description(file, what, weight, json::parse(text, text + bytes.size(), nullptr, false));
  }
  // AWQ: the layer's input is multiplied first.
  if (file.find(layer + "pre_quant_scale"))
    fail_file(file.path(),
              fmt::format("tensor {} has a scale for its input ({}), which is not supported yet", in_quotes(weight),
                          in_quotes(layer + "pre_quant_scale")),
              "use the model's fp8 or bf16 release");
}

}  // namespace

std::span<const std::string_view> weight_companions() {
  static constexpr std::array<std::string_view, 5> kNames = {"scale_weight", "weight_scale", "scale_input",
                                                             "input_scale", "comfy_quant"};
  return kNames;
}

std::string_view layer_of(std::string_view name) {
  constexpr std::string_view kWeight = "weight";
  if (!name.ends_with(kWeight)) return {};
  name.remove_suffix(kWeight.size());
  return name.empty() || name.ends_with('.') ? name : std::string_view{};
}

const TensorInfo* scale_tensor(const TensorFile& file, std::string_view name) {
  if (name != "weight" && layer_of(name).empty()) return nullptr;
  const std::string layer(layer_of(name));
  check_quantisation(file, layer, name);
  for (const char* spelling : {"scale_weight", "weight_scale"}) {
    const TensorInfo* info = file.find(layer + spelling);
    if (!info) continue;
    if (info->count() != 1)
      fail_file(file.path(), fmt::format("tensor {} has shape {}: only one scale a weight is supported yet",
                                         in_quotes(layer + spelling), shape_text(info->shape)));
    if (!is_floating(info->dtype))
      fail_file(file.path(), fmt::format("tensor {} has type {}: a scale of this type is not supported yet",
                                         in_quotes(layer + spelling), info->type_name()));
    return info;
  }
  return nullptr;
}

}  // namespace mgpu
