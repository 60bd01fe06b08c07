#include "cli/job/metadata_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/strings.h"
#include "core/text/text_encoder.h"

namespace mgpu {
namespace {

using Json = nlohmann::ordered_json;

/// A value of the record that has not the form. what(): "\"job.steps\" is no number"
struct WrongForm : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws WrongForm for a value that has not the form; `key` is where it stands.
using Form = std::function<void(const Json&, const std::string& key)>;

[[noreturn]] void refuse(const std::string& key, std::string_view why) {
  throw WrongForm(fmt::format("{} {}", in_quotes(key), why));
}

bool is_name(const std::string& text) {
  const bool has_control =
      std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  return !text.empty() && text != "." && text != ".." && text.find('/') == std::string::npos && !has_control;
}

void check_name(const Json& value, const std::string& key) {
  if (!value.is_string() || !is_name(value.get<std::string>())) refuse(key, "is no file name without a folder");
}

void check_text(const Json& value, const std::string& key) {
  if (!value.is_string()) refuse(key, "is no text");
}

void check_number(const Json& value, const std::string& key) {
  if (!value.is_number()) refuse(key, "is no number");
}

void check_whole(const Json& value, const std::string& key) {
  if (!value.is_number_unsigned()) refuse(key, "is no whole number");
}

void check_exactness(const Json& value, const std::string& key) {
  if (!value.is_boolean() && value != "portable") refuse(key, "is neither true, false nor \"portable\"");
}

void check_hash(const Json& value, const std::string& key) {
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

void check_shift(const Json& value, const std::string& key) {
  if (value.is_object()) {
    object({{"base", check_number}, {"max", check_number}})(value, key);
  } else if (!value.is_string()) {
    check_number(value, key);
  }
}

/// File names by some of these keys.
Form names_by(const std::vector<std::string_view>& keys) {
  std::vector<std::pair<std::string, Form>> forms;
  for (const std::string_view key : keys) forms.emplace_back(key, check_name);
  return object(std::move(forms));
}

Form record_form() {
  constexpr std::size_t kMost = 10'000;
  const Form sampler = object({{"name", check_text},
                               {"scheduler", check_text},
                               {"steps", check_whole},
                               {"cfg", check_number},
                               {"guidance", check_number},
                               {"denoise", check_number},
                               {"shift", check_shift},
                               {"clip_skip", check_whole},
                               {"step_noise", check_text}});
  const Form condition = object({{"prompt", check_text},
                                 {"mask", check_name},
                                 {"strength", check_number},
                                 {"start", check_number},
                                 {"end", check_number}});
  const Form image = object({{"prompt", check_text},
                             {"negative", check_text},
                             {"width", check_whole},
                             {"height", check_whole},
                             {"seed", check_whole},
                             {"batch", check_whole},
                             {"conditions", list(condition, kMost)},
                             {"init_image", check_name},
                             {"mask", check_name}});
  const Form job = object({{"checkpoint", check_name},
                           {"encoders", names_by(encoder_keys())},
                           {"vae", check_name},
                           {"tokenizers", names_by(tokenizer_keys())},
                           {"dtype", object({{"unet", check_text}, {"clip", check_text}, {"vae", check_text}})},
                           {"exact", check_exactness},
                           {"sampler", sampler},
                           {"images", list(image, 1)}});
  const Form used = object({{"name", check_name}, {"bytes", check_whole}, {"sha256", check_hash}});
  return object({{"version", check_whole}, {"job", job}, {"files", list(used, kMost)}, {"in_batch", check_whole}});
}

}  // namespace

void check_record(const Json& record, const std::string& file) {
  static const Form form = record_form();
  try {
    form(record, "");
  } catch (const WrongForm& error) {
    fail_file(file, fmt::format("its mgpu_job record is damaged: {}", error.what()),
              "only pictures that mgpu-render made can be used");
  }
}

}  // namespace mgpu
