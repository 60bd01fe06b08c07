#pragma once

#include "core/models/diffusion_model.h"

namespace mgpu {

/// Flux.1, dev and schnell (core/models/flux.h).
class FluxModel final : public DiffusionModel {
 public:
  std::string_view kind() const override { return "a Flux.1 transformer"; }
  Sizes read(PartShapes& shapes) const override;
  BlockCounts blocks(const Sizes& sizes) const override;
  ComponentNeed need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const override;
  void check(const ModelSet& set) const override;
  std::unique_ptr<DiffusionShard> load(const Part& part, const Weights& weights, const HeldBlocks& held,
                                       const WarmUpShape& warm_up_shape) const override;
  bool takes_guidance(const Part& part) const override;
};
extern const FluxModel kFluxModel;

}  // namespace mgpu
