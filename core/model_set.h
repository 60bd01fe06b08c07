#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/family.h"
#include "core/weights.h"

namespace mgpu {

/// Where a job's weights and tokenizer data lie. An empty path of an encoder or the autoencoder: in the checkpoint.
struct ModelPaths {
  std::string checkpoint = {};
  std::string clip_l = {};  ///< SD 2.x: its CLIP-H
  std::string clip_g = {};
  std::string t5xxl = {};
  std::string vae = {};
  std::string clip_tokenizer = {};   ///< merges.txt; "": not looked at
  std::string t5xxl_tokenizer = {};  ///< spiece.model
};

/// The parts of a job, recognised from headers and found to belong together. Which encoders there are is the family's
/// (FamilyRow::text).
struct ModelSet {
  Part diffusion;
  std::optional<Part> clip_l;  ///< SD 2.x: its CLIP-H
  std::optional<Part> clip_g;
  std::optional<Part> t5xxl;
  Part vae;
  std::string clip_tokenizer;
  std::string t5xxl_tokenizer;          ///< "" where there is no T5
  std::vector<std::string> notes = {};  ///< what the user should know and nothing is refused for: "FILE: ..." each

  const Training& training() const { return *diffusion.row->training; }
  const TextRecipe& text() const { return *diffusion.row->text; }
  /// The part that a recipe of this family means.
  const Part& encoder(TextEncoder encoder) const;
  /// Throws FileChanged when one of the weight files has changed since it was opened (TensorFile::check).
  void check_files() const;
  bool is_flux() const { return std::holds_alternative<FluxSizes>(diffusion.sizes); }
};

/// Opens and recognises. Throws Error naming the file that is missing, damaged, of another family or of no use to the
/// others, and the job's key for it.
ModelSet open_models(const ModelPaths& paths);

/// Throws Error naming both files when an encoder or the autoencoder does not belong to the diffusion model, or the
/// tokenizers' data do not belong to an encoder; naming the tensor when an encoder's file has left out what the family
/// reads of it under any clip_skip.
void check_set(const ModelSet& set);

/// Throws Error naming the tensor when an encoder's file has left out the layer that is read under this clip_skip
/// (layer_under()), or when there is no such layer.
void check_clip_layers(const ModelSet& set, std::int64_t clip_skip);

/// The part's tensors in `dtype` on `device`.
Weights weights_of(const Part& part, at::ScalarType dtype, at::Device device);

/// The widest floating type that the part's tensors are stored in, 8-bit types left out; bf16 where there are only
/// such. Encoders keep it: they compute in fp32 whatever they are stored in.
at::ScalarType stored_type(const Part& part);

/// Bytes of the part's tensors once loaded for computing in `dtype`: wider ones narrowed, 8-bit ones as they are.
std::uint64_t loaded_bytes(const Part& part, at::ScalarType dtype);
/// The same of one tensor.
std::uint64_t loaded_bytes(const TensorInfo& info, at::ScalarType dtype);

}  // namespace mgpu
