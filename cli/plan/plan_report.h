#pragma once

#include <string>
#include <vector>

#include "shard/plan.h"

namespace mgpu {

/// What `plan` answers for a job.
struct PlanReport {
  std::string job;
  const Plan& plan;
  std::string nearest_fit;              ///< of a plan that does not fit
  std::vector<std::string> notes = {};  ///< job_notes()
};

/// As JSON, with report.json's names; the devices hold predictions only.
std::string to_json(const PlanReport& report);

/// As a table: what each device would hold, its predicted peaks and how long it takes of a pass, beside the slowest.
std::string to_table(const PlanReport& report);

}  // namespace mgpu
