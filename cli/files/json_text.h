#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace mgpu {

/// JSON texts as one document: one as it is, several as a list.
std::string one_document(const std::vector<std::string>& texts);

/// A document's text. File names and messages of the system may hold any bytes; JSON holds UTF-8.
std::string dump_json(const nlohmann::ordered_json& json, int indent);

}  // namespace mgpu
