#include "core/models/unet_model.h"

#include <fmt/format.h>

#include "core/model_set.h"
#include "core/models/unet_shard.h"
#include "core/models/unet_sizes.h"
#include "core/text/text_encoder.h"

namespace mgpu {
namespace {

constexpr int kSizeWidth = 256;  // of one number's embedding in SDXL's vector

}  // namespace

const UNetModel kUNetModel;

Sizes UNetModel::read(PartShapes& shapes) const {
  return read_unet_sizes(shapes);
}

BlockCounts UNetModel::blocks(const Sizes& sizes) const {
  const auto& unet = std::any_cast<const UNetSizes&>(sizes);
  const int depth = static_cast<int>(unet.down.size());
  return {{"down", depth}, {"middle", unet.middle_residuals > 0 ? 1 : 0}, {"up", depth}};
}

void UNetModel::check(const ModelSet& set) const {
  const auto& unet = set.diffusion.as<UNetSizes>();
  int width = 0;
  for (const Part& encoder : set.encoders) width += text_encoder(encoder).width(encoder);
  const Part& last = set.encoders.back();
  const std::string states = set.encoders.size() > 1 ? fmt::format("with {}'s beside them its hidden states have width",
                                                                   text_encoder(set.encoders.front()).names().label)
                                                     : "its hidden states have width";
  check_width(set, last, states, width, unet.context);
  if (unet.vector > 0)
    check_width(set, last, "its pooled output has width",
                text_encoder(last).pooled_width(last, set.text().encoders.back(), set),
                unet.vector - kSizeWidth * set.diffusion.row->size_values);
}

std::unique_ptr<DiffusionShard> UNetModel::load(const Part& part, const Weights& weights, const HeldBlocks& held,
                                                const WarmUpShape&) const {
  return load_unet_shard(*part.row, part.as<UNetSizes>(), weights, held);
}

std::int64_t UNetModel::extra_channels(const Part& part) const {
  const auto& unet = part.as<UNetSizes>();
  return unet.channels_in - unet.channels_out;
}

}  // namespace mgpu
