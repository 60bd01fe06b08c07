#pragma once

#include <string>

#include "core/family.h"
#include "core/weights.h"

namespace mgpu {

/// Where a job's weights and tokenizer data lie. An empty path of an encoder or the autoencoder: in the checkpoint.
struct ModelPaths {
  std::string checkpoint;
  std::string clip_l;
  std::string t5xxl;
  std::string vae;
  std::string clip_tokenizer;   ///< merges.txt
  std::string t5xxl_tokenizer;  ///< spiece.model
};

/// The parts of a Flux.1 job, recognised from headers alone and found to belong together.
struct ModelSet {
  Part diffusion, clip_l, t5xxl, vae;
  std::string clip_tokenizer;
  std::string t5xxl_tokenizer;

  const FlowTraining& flow() const { return *diffusion.row->flow; }
};

/// Opens and recognises. Throws Error naming the file that is missing, damaged, of another family or of no use to the
/// others.
ModelSet open_models(const ModelPaths& paths);

/// The part's tensors in `dtype` on `device`.
Weights weights_of(const Part& part, at::ScalarType dtype, at::Device device);

/// The widest floating type that the part's tensors are stored in, 8-bit types left out; bf16 where there are only
/// such. Encoders keep it: they compute in fp32 whatever they are stored in.
at::ScalarType stored_type(const Part& part);

/// Bytes of the part's tensors once loaded for computing in `dtype`: wider ones narrowed, 8-bit ones as they are.
std::uint64_t loaded_bytes(const Part& part, at::ScalarType dtype);

}  // namespace mgpu
