#include "cli/files/json_text.h"

#include <fmt/ranges.h>

namespace mgpu {

std::string one_document(const std::vector<std::string>& texts) {
  if (texts.size() == 1) return texts.front();
  return fmt::format("[\n{}]\n", fmt::join(texts, ",\n"));
}

std::string dump_json(const nlohmann::ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace mgpu
