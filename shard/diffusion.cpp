#include "shard/diffusion.h"

#include "core/models/unet.h"
#include "shard/flux_shard.h"
#include "shard/unet_shard.h"

namespace mgpu {

std::vector<DiffusionBlock> diffusion_blocks(const ModelSet& models) {
  std::vector<DiffusionBlock> out;
  if (!models.is_flux()) {
    for (const UNetBlockName& name : unet_blocks(models.diffusion.unet())) out.push_back({name.kind, name.number});
    return out;
  }
  const FluxSizes& flux = models.diffusion.flux();
  for (int i = 0; i < flux.depth; ++i) out.push_back({"double", i});
  for (int i = 0; i < flux.depth_single; ++i) out.push_back({"single", i});
  return out;
}

std::unique_ptr<DiffusionShard> load_shard(const ModelSet& models, const HeldBlocks& held, at::ScalarType dtype,
                                           at::Device device, const Rehearsal& rehearsal) {
  const Part& part = models.diffusion;
  const Weights weights = weights_of(part, dtype, device);
  return models.is_flux() ? load_flux_shard(part.flux(), weights, held, rehearsal)
                          : load_unet_shard(*part.row, part.unet(), weights, held);
}

}  // namespace mgpu
