#include "cli/picture_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/strings.h"

namespace mgpu {
namespace {

using Json = nlohmann::ordered_json;

/// Throws std::string, what is wrong, for a value that has not the form; `key` is where it stands.
using Form = std::function<void(const Json&, const std::string& key)>;

[[noreturn]] void refuse(const std::string& key, std::string_view why) {
  throw fmt::format("{} {}", in_quotes(key), why);
}

bool is_name(const std::string& text) {
  const bool has_control =
      std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  return !text.empty() && text != "." && text != ".." && text.find('/') == std::string::npos && !has_control;
}

void name(const Json& value, const std::string& key) {
  if (!value.is_string() || !is_name(value.get<std::string>())) refuse(key, "is no file name without a folder");
}

void text(const Json& value, const std::string& key) {
  if (!value.is_string()) refuse(key, "is no text");
}

void number(const Json& value, const std::string& key) {
  if (!value.is_number()) refuse(key, "is no number");
}

void whole(const Json& value, const std::string& key) {
  if (!value.is_number_unsigned()) refuse(key, "is no whole number");
}

void exactness(const Json& value, const std::string& key) {
  if (!value.is_boolean() && value != "portable") refuse(key, "is neither true, false nor \"portable\"");
}

void hash(const Json& value, const std::string& key) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  if (!value.is_string() || value.get<std::string>().find_first_not_of(kDigits) != std::string::npos)
    refuse(key, "is no hash");
}

Form object(std::vector<std::pair<std::string, Form>> keys) {
  return [keys = std::move(keys)](const Json& value, const std::string& key) {
    if (!value.is_object()) refuse(key, "is no map");
    for (const auto& [inner, entry] : value.items()) {
      const std::string path = key.empty() ? inner : key + "." + inner;
      const auto known = std::ranges::find(keys, inner, &std::pair<std::string, Form>::first);
      if (known == keys.end()) refuse(path, "is a key that no record has");
      known->second(entry, path);
    }
  };
}

Form list(Form form, std::size_t most) {
  return [form = std::move(form), most](const Json& value, const std::string& key) {
    if (!value.is_array() || value.size() > most) refuse(key, "is no list of the right length");
    for (std::size_t i = 0; i < value.size(); ++i) form(value[i], fmt::format("{}.{}", key, i));
  };
}

void shift(const Json& value, const std::string& key) {
  if (value.is_object()) {
    object({{"base", number}, {"max", number}})(value, key);
  } else if (!value.is_string()) {
    number(value, key);
  }
}

Form record_form() {
  constexpr std::size_t kMost = 10'000;
  const Form sampler = object({{"name", text},
                               {"scheduler", text},
                               {"steps", whole},
                               {"cfg", number},
                               {"guidance", number},
                               {"denoise", number},
                               {"shift", shift},
                               {"clip_skip", whole},
                               {"step_noise", text}});
  const Form condition =
      object({{"prompt", text}, {"mask", name}, {"strength", number}, {"start", number}, {"end", number}});
  const Form image = object({{"prompt", text},
                             {"negative", text},
                             {"width", whole},
                             {"height", whole},
                             {"seed", whole},
                             {"batch", whole},
                             {"conditions", list(condition, kMost)},
                             {"init_image", name},
                             {"mask", name}});
  const Form job = object({{"checkpoint", name},
                           {"encoders", object({{"clip_l", name}, {"clip_g", name}, {"t5xxl", name}})},
                           {"vae", name},
                           {"tokenizers", object({{"clip", name}, {"t5xxl", name}})},
                           {"dtype", object({{"unet", text}, {"clip", text}, {"vae", text}})},
                           {"exact", exactness},
                           {"sampler", sampler},
                           {"images", list(image, 1)}});
  const Form used = object({{"name", name}, {"bytes", whole}, {"sha256", hash}});
  return object({{"version", whole}, {"job", job}, {"files", list(used, kMost)}, {"in_batch", whole}});
}

}  // namespace

void check_record(const Json& record, const std::string& file) {
  static const Form form = record_form();
  try {
    form(record, "");
  } catch (const std::string& why) {
    fail_file(file, "its mgpu_job record is damaged: " + why, "only pictures that mgpu-render made can be used");
  }
}

}  // namespace mgpu
