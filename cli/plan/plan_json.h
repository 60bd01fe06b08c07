#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "shard/plan.h"

// What report.json and `plan --json` say in the same words.

namespace mgpu {

template <class T>
nlohmann::ordered_json phases_json(const Phases<T>& phases) {
  return {{"encode", phases.encode}, {"sample", phases.sample}, {"decode", phases.decode}};
}

nlohmann::ordered_json assignments_json(const std::vector<Assignment>& assignments);

}  // namespace mgpu
