#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/family.h"
#include "core/text/recipe.h"
#include "core/weights.h"

namespace mgpu {

/// Where a job's weights and tokenizer data lie. What an encoder or the autoencoder has no path for lies in the
/// checkpoint.
struct ModelPaths {
  std::string checkpoint = {};
  std::map<std::string, std::string, std::less<>> encoders = {};  ///< by the encoders' keys
  std::string vae = {};
  std::map<std::string, std::string, std::less<>> tokenizers = {};  ///< by the tokenizers' keys; absent: not looked at
};

/// The parts of a job, recognised from headers and found to belong together.
struct ModelSet {
  Part diffusion;
  std::vector<Part> encoders;  ///< those of the family, in the order of its recipe (FamilyRow::text)
  Part vae;
  std::map<std::string, std::string, std::less<>> tokenizers = {};  ///< data files of those encoders, by their keys
  std::vector<std::string> notes = {};  ///< what the user should know and nothing is refused for: "FILE: ..." each

  const Training& training() const { return *diffusion.row->training; }
  const TextRecipe& text() const { return *diffusion.row->text; }
  /// All of them: the diffusion model, the encoders, the autoencoder.
  std::vector<const Part*> parts() const;
  /// The encoder of that key. It must be there.
  const Part& encoder(std::string_view key) const;
  bool has_encoder(std::string_view key) const;
  /// The tokenizer's data file; "" where it is not looked at.
  const std::string& tokenizer(std::string_view key) const;
  /// The data file of the encoder's tokenizer; "" where it needs none.
  const std::string& tokenizer_of(const TextEncoderModel& encoder) const;
  /// Throws FileChanged when one of the weight files has changed since it was opened (TensorFile::check).
  void check_files() const;
};

/// Opens and recognises. Throws Error naming the file that is missing, damaged, of another family or of no use to the
/// others, and the job's key for it.
ModelSet open_models(const ModelPaths& paths);

/// Throws Error naming both files when an encoder or the autoencoder does not belong to the diffusion model, or the
/// tokenizers' data do not belong to an encoder; naming the tensor when an encoder's file has left out what the family
/// reads of it under any clip_skip.
void check_set(const ModelSet& set);

/// Throws Error naming both files where what the part gives ("its hidden states have width") is not what the diffusion
/// model takes.
void check_width(const ModelSet& set, const Part& part, std::string_view gives, int given, int taken);

/// Throws Error naming the tensor when an encoder's file has left out the layer that is read under this clip_skip
/// (layer_under()), or when there is no such layer.
void check_clip_layers(const ModelSet& set, std::int64_t clip_skip);

/// The part's tensors in `dtype` on `device`.
Weights weights_of(const Part& part, at::ScalarType dtype, at::Device device);

/// The widest floating type that the part's tensors are stored in, 8-bit types left out; bf16 where there are only
/// such. Encoders keep it: they compute in fp32 whatever they are stored in.
at::ScalarType stored_type(const Part& part);

/// Bytes of the part's tensors once loaded for computing in `dtype`: wider ones narrowed, packed and 8-bit ones as they
/// are, patched ones in `dtype`.
std::uint64_t loaded_bytes(const Part& part, at::ScalarType dtype);
/// The same of one tensor, by its full name.
std::uint64_t loaded_bytes(const Part& part, std::string_view name, const TensorInfo& info, at::ScalarType dtype);

}  // namespace mgpu
