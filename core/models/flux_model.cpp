#include "core/models/flux_model.h"

#include "core/model_set.h"
#include "core/models/flux_shard.h"
#include "core/models/flux_sizes.h"
#include "core/text/text_encoder.h"

namespace mgpu {

const FluxModel kFluxModel;

Sizes FluxModel::read(PartShapes& shapes) const {
  return read_flux_sizes(shapes);
}

BlockCounts FluxModel::blocks(const Sizes& sizes) const {
  const auto& flux = std::any_cast<const FluxSizes&>(sizes);
  return {{"double", flux.depth}, {"single", flux.depth_single}};
}

void FluxModel::check(const ModelSet& set) const {
  const auto& flux = set.diffusion.as<FluxSizes>();
  const Part &clip = set.encoder("clip_l"), &t5 = set.encoder("t5xxl");
  check_width(set, clip, "its pooled output has width", text_encoder(clip).width(clip), flux.vector);
  check_width(set, t5, "its hidden states have width", text_encoder(t5).width(t5), flux.context);
}

std::unique_ptr<DiffusionShard> FluxModel::load(const Part& part, const Weights& weights, const HeldBlocks& held,
                                                const WarmUpShape& warm_up_shape) const {
  return load_flux_shard(part.as<FluxSizes>(), weights, held, warm_up_shape);
}

bool FluxModel::takes_guidance(const Part& part) const {
  return part.as<FluxSizes>().guidance;
}

}  // namespace mgpu
