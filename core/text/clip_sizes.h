#pragma once

#include <cstdint>
#include <string>

namespace mgpu {

class PartShapes;

/// Sizes of a CLIP text model, in transformers' layout or OpenCLIP's.
struct ClipSizes {
  int hidden = 0;
  int heads = 0;  ///< hidden / 64
  int mlp = 0;
  int layers = 0;  ///< that the file holds and the architecture has
  int depth = 0;   ///< layers of the architecture: a file may leave out the last, where nothing uses them
  int vocabulary = 0;
  int positions = 0;        ///< tokens per chunk
  bool final_norm = false;  ///< the norm behind the last layer is there
  bool projection = false;  ///< the text projection is there (most families do not use it)
  std::string layer_norm;   ///< "layer_norm1": the first tensor of a layer, less ".weight"; in OpenCLIP's layout "ln_1"
  std::string norm_name;    ///< "text_model.final_layer_norm"; "ln_final"
  std::string projection_name;  ///< "text_projection.weight" [out, hidden]; "text_projection" [hidden, out]
  std::string layers_prefix;    ///< "text_model.encoder.layers."; "transformer.resblocks." in OpenCLIP's layout
};

/// Takes the sizes from a few tensors, then asks for every other tensor of the part with the shape that follows. Throws
/// Error naming file and tensor.
ClipSizes read_clip_sizes(PartShapes& shapes);

/// Layers of the CLIP text model (L 12, H 24, G 32) whose file holds `layers` layers of `width`, which may leave out
/// the last: known by its width, or by one layer less than a known depth; else a model of its own, as deep as its file.
int clip_depth(int layers, std::int64_t width);

}  // namespace mgpu
