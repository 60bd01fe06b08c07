#include "core/models/diffusion_model.h"

#include "core/error.h"

namespace mgpu {

const DiffusionModel& diffusion_model(const Part& part) {
  const auto* model = dynamic_cast<const DiffusionModel*>(part.row->model);
  MGPU_CHECK(model, "{} is no diffusion model", part.row->what);
  return *model;
}

std::vector<DiffusionBlock> diffusion_blocks(const Part& part) {
  std::vector<DiffusionBlock> out;
  for (const auto& [kind, count] : part.blocks())
    for (int i = 0; i < count; ++i) out.push_back({kind, i});
  return out;
}

}  // namespace mgpu
