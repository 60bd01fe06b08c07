#pragma once

#include "core/text/text_encoder.h"

namespace mgpu {

/// The encoder of T5 v1.1 XXL (core/text/t5_encoder.h).
class T5Model final : public TextEncoderModel {
 public:
  using TextEncoderModel::TextEncoderModel;

  std::string_view kind() const override { return "a T5 text encoder"; }
  Sizes read(PartShapes& shapes) const override;
  BlockCounts blocks(const Sizes& sizes) const override;
  int width(const Part& part) const override;
  ComponentNeed need(const Part& part, const EncoderUse& use, at::ScalarType dtype,
                     const LargestPicture& picture) const override;
  void check_tokenizer(const Part& part, const std::string& data) const override;
  std::unique_ptr<PromptTokenizer> tokenizer(const std::string& data, const EncoderUse& use,
                                             bool breaks) const override;
  std::unique_ptr<PromptEncoder> load(const EncoderUse& use, bool breaks, const Weights& weights,
                                      const std::string& data, const TextualInversions& inversions,
                                      std::vector<EncoderPiece> pieces) const override;
};
extern const T5Model kT5xxl;

}  // namespace mgpu
