#include "cli/plan/plan_json.h"

namespace mgpu {

nlohmann::ordered_json assignments_json(const std::vector<Assignment>& assignments) {
  auto out = nlohmann::ordered_json::array();
  for (const Assignment& a : assignments)
    out.push_back({{"component", a.component},
                   {"kind", a.kind},
                   {"first", a.first},
                   {"last", a.last},
                   {"blocks", a.blocks},
                   {"bytes", a.bytes},
                   {"streamed", a.streamed},
                   {"from", a.from}});
  return out;
}

}  // namespace mgpu
