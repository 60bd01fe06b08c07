#pragma once

namespace mgpu {

class PartShapes;

/// Sizes of a Flux.1 transformer, read from its tensors.
struct FluxSizes {
  int hidden = 0;         ///< width of the residual stream
  int heads = 0;          ///< hidden / 128, the rotary axes being 16 + 56 + 56
  int mlp = 0;            ///< width of the MLPs' hidden layer
  int depth = 0;          ///< double blocks
  int depth_single = 0;   ///< single blocks
  int context = 0;        ///< width of T5's hidden states that it takes
  int vector = 0;         ///< width of CLIP-L's pooled output that it takes
  int channels = 0;       ///< of the latent: img_in takes 2x2 patches of them
  bool guidance = false;  ///< distilled guidance is an input (dev); schnell has none
};

/// Takes the sizes from a few tensors, then asks for every other tensor of the part with the shape that follows. Throws
/// Error naming file and tensor.
FluxSizes read_flux_sizes(PartShapes& shapes);

}  // namespace mgpu
