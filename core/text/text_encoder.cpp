#include "core/text/text_encoder.h"

#include <algorithm>

#include "core/error.h"

namespace mgpu {

std::vector<std::string> encoder_prefixes(std::initializer_list<std::string_view> names) {
  std::vector<std::string> out;
  for (const std::string_view name : names)
    for (const char* inner : {"", "transformer.", "model."}) out.push_back(std::string(name) + inner);
  return out;
}

const TextEncoderModel& text_encoder(const Part& part) {
  const auto* model = dynamic_cast<const TextEncoderModel*>(part.row->model);
  MGPU_CHECK(model, "{} is no text encoder", part.row->what);
  return *model;
}

std::vector<const TextEncoderModel*> text_encoders() {
  std::vector<const TextEncoderModel*> out;
  for (const FamilyRow& row : family_rows()) {
    const auto* model = dynamic_cast<const TextEncoderModel*>(row.model);
    if (model && std::ranges::find(out, model->key(), &TextEncoderModel::key) == out.end()) out.push_back(model);
  }
  return out;
}

std::vector<const TokenizerData*> tokenizer_data() {
  std::vector<const TokenizerData*> out;
  for (const TextEncoderModel* encoder : text_encoders()) {
    const TokenizerData* data = encoder->names().tokenizer;
    if (data && std::ranges::find(out, data) == out.end()) out.push_back(data);
  }
  return out;
}

std::vector<std::string_view> encoder_keys() {
  std::vector<std::string_view> out;
  for (const TextEncoderModel* encoder : text_encoders()) out.push_back(encoder->key());
  return out;
}

std::vector<std::string_view> tokenizer_keys() {
  std::vector<std::string_view> out;
  for (const TokenizerData* data : tokenizer_data()) out.push_back(data->key);
  return out;
}

}  // namespace mgpu
