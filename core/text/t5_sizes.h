#pragma once

#include <string>

namespace mgpu {

class PartShapes;

/// Sizes of a T5 v1.1 encoder (transformers' names).
struct T5Sizes {
  int hidden = 0;  ///< d_model
  int heads = 0;
  int head_dim = 0;  ///< d_kv: heads * head_dim need not be hidden
  int mlp = 0;       ///< d_ff
  int layers = 0;
  int vocabulary = 0;
  int buckets = 0;        ///< of the relative position bias
  std::string embedding;  ///< name of the token embedding: "shared.weight" or "encoder.embed_tokens.weight"
};

/// Takes the sizes from a few tensors, then asks for every other tensor of the part with the shape that follows. Throws
/// Error naming file and tensor.
T5Sizes read_t5_sizes(PartShapes& shapes);

}  // namespace mgpu
