#pragma once

#include <vector>

namespace mgpu {

class PartShapes;

/// One block of a UNet's ways down and up: a residual block and the transformer behind it, or a change of resolution.
struct UNetBlockSizes {
  int in = 0;              ///< channels that its residual block takes; on the way up without the skip's
  int out = 0;             ///< channels that it gives
  int skip = 0;            ///< way up: channels of the skip, behind `in`
  int depth = 0;           ///< transformer blocks behind the residual block
  bool resamples = false;  ///< way down: nothing but a strided convolution; way up: the image doubles at the end
};

/// Sizes of a Stable Diffusion UNet (original LDM names), block by block, so that distilled models, which left some
/// out, are described too. Block 0 of the way down is the input convolution; the up block j takes the skip of the down
/// block skip_of(j).
struct UNetSizes {
  int channels_in = 0;               ///< 4; 9 where the latent comes with a mask and the masked picture's latent
  int channels_out = 0;              ///< of the latent
  int model_channels = 0;            ///< of the first level, and the timestep's sinusoid
  std::vector<UNetBlockSizes> down;  ///< input_blocks
  std::vector<UNetBlockSizes> up;    ///< output_blocks, as many
  int middle_residuals = 0;          ///< of middle_block: 2; distilled models have 1 or none
  int depth_middle = 0;              ///< transformer blocks between them
  int context = 0;                   ///< width of the text's hidden states
  int vector = 0;                    ///< width of label_emb's input (pooled text and picture size), or 0
  bool linear_projections = false;   ///< the transformers' proj_in and proj_out are matrices, not 1x1 convolutions

  /// Attention heads over `channels`: 8 at any width in SD 1.x, which has convolutions for projections, later 64 wide.
  int heads(int channels) const { return linear_projections ? channels / 64 : 8; }
  /// The down block whose result the up block `up` takes: the last first.
  int skip_of(int up_block) const { return static_cast<int>(down.size()) - 1 - up_block; }
};

/// Takes the sizes from a few tensors, then asks for every other tensor of the part with the shape that follows. Throws
/// Error naming file and tensor.
UNetSizes read_unet_sizes(PartShapes& shapes);

}  // namespace mgpu
