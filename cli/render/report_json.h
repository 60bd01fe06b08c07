#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "shard/plan.h"

// What report.json and `plan --json` say in the same words.

namespace mgpu {

template <class T>
nlohmann::ordered_json phases_json(const Phases<T>& phases) {
  return {{"encode", phases.encode}, {"sample", phases.sample}, {"decode", phases.decode}};
}

nlohmann::ordered_json assignments_json(const std::vector<Assignment>& assignments);

/// JSON texts as one document: one as it is, several as a list.
std::string one_document(const std::vector<std::string>& texts);

/// File names and messages of the system may hold any bytes; JSON holds UTF-8.
std::string dump_json(const nlohmann::ordered_json& json, int indent);

}  // namespace mgpu
