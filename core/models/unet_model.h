#pragma once

#include "core/models/diffusion_model.h"

namespace mgpu {

/// Stable Diffusion's UNet: 1.x, 2.x, XL and its refiner, and their inpainting cousins (core/models/unet.h).
class UNetModel final : public DiffusionModel {
 public:
  std::string_view kind() const override { return "a Stable Diffusion UNet"; }
  Sizes read(PartShapes& shapes) const override;
  BlockCounts blocks(const Sizes& sizes) const override;
  ComponentNeed need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const override;
  void check(const ModelSet& set) const override;
  std::unique_ptr<DiffusionShard> load(const Part& part, const Weights& weights, const HeldBlocks& held,
                                       const WarmUpShape& warm_up_shape) const override;
  at::ScalarType gpu_type() const override { return at::kHalf; }
  std::int64_t extra_channels(const Part& part) const override;
};
extern const UNetModel kUNetModel;

}  // namespace mgpu
