#pragma once

#include "core/text/text_encoder.h"

namespace mgpu {

/// CLIP's text models (core/text/clip_encoder.h): they differ in what they are called, in their GELU and in what fills
/// a chunk.
class ClipModel final : public TextEncoderModel {
 public:
  /// `is_openai`: ViT-L, which has the quick GELU and fills chunks with its end token; else OpenCLIP's, filled with 0.
  ClipModel(EncoderNames names, bool is_openai) : TextEncoderModel(std::move(names)), is_openai_(is_openai) {}

  std::string_view kind() const override { return "a CLIP text encoder"; }
  Sizes read(PartShapes& shapes) const override;
  BlockCounts blocks(const Sizes& sizes) const override;
  int width(const Part& part) const override;
  int pooled_width(const Part& part, const EncoderUse& use, const ModelSet& set) const override;
  ComponentNeed need(const Part& part, const EncoderUse& use, at::ScalarType dtype,
                     const LargestPicture& picture) const override;
  void check(const Part& part, const EncoderUse& use, const ModelSet& set) const override;
  void check_layer(const Part& part, const EncoderUse& use, std::int64_t clip_skip, const ModelSet& set) const override;
  void check_tokenizer(const Part& part, const std::string& data) const override;
  bool has_clip_skip() const override { return true; }
  bool reads_chunks() const override { return true; }
  std::size_t most_tokens(std::size_t bytes) const override;
  std::unique_ptr<PromptTokenizer> tokenizer(const std::string& data, const EncoderUse& use,
                                             bool breaks) const override;
  std::unique_ptr<PromptEncoder> load(const EncoderUse& use, bool breaks, const Weights& weights,
                                      const std::string& data, const TextualInversions& inversions,
                                      std::vector<EncoderPiece> pieces) const override;

 private:
  bool is_openai_;
};

/// OpenAI's ViT-L, OpenCLIP's ViT-bigG and ViT-H (SD 2.x), which goes by CLIP-L's key.
extern const ClipModel kClipL, kClipG, kClipH;

}  // namespace mgpu
