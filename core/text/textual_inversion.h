#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

/// Textual inversions: files of vectors that stand in a prompt as `embedding:name`. Reference: ComfyUI (comfy/
/// sd1_clip.py, load_embed).
class TextualInversions {
 public:
  /// Folders in the order in which they are searched, each with the folders in it.
  explicit TextualInversions(std::vector<std::string> folders = {}) : folders_(std::move(folders)) {}

  /// The file of that name, with or without its extension. Throws Error (exit 2) that lists the folders and the nearest
  /// name when there is none.
  std::string find(std::string_view name) const;

  /// The name's vectors for an encoder (EncoderNames::embedding) [n, width] in fp32. Known files: `clip_l`, `clip_g`
  /// and so on, one tensor an encoder; `emb_params`; `string_to_param.*`; one tensor of any name. Throws Error (exit 2)
  /// naming the file for a pickle, for several tensors of other names, and for vectors of another width.
  at::Tensor vectors(std::string_view name, std::string_view encoder, std::int64_t width) const;

 private:
  std::vector<std::string> folders_;
};

}  // namespace mgpu
