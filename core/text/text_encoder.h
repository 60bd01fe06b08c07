#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/family.h"
#include "core/need.h"
#include "core/text/encoder_pieces.h"
#include "core/text/prompt.h"
#include "core/text/prompt_encoder.h"
#include "core/text/recipe.h"
#include "core/text/textual_inversion.h"
#include "core/weights.h"

namespace mgpu {

struct ModelSet;

/// A tokenizer's data, which several encoders may share: CLIP's merges.
struct TokenizerData {
  std::string_view key;   ///< what a job calls it under "tokenizers"
  std::string_view file;  ///< the name under which scripts/setup.sh installs it
  std::string_view what;  ///< "CLIP's merges.txt"
};

/// How an encoder is called.
struct EncoderNames {
  Role role;
  std::string_view key;    ///< a job's word under "encoders" and "allocation", and the component's in plan and report
  std::string_view label;  ///< "CLIP-L"
  std::string_view embedding;                ///< the key in a textual inversion's file
  const TokenizerData* tokenizer = nullptr;  ///< null: its tokenizer needs no file
};

/// Cuts prompts into the chunks that an encoder reads.
class PromptTokenizer {
 public:
  virtual ~PromptTokenizer() = default;
  virtual std::vector<Chunk> chunks(std::string_view prompt, const FindVectors& find) const = 0;
};

/// A text encoder's model text: all that shared code asks of it. The rows of its files point at it.
class TextEncoderModel : public PartModel {
 public:
  explicit TextEncoderModel(EncoderNames names) : names_(std::move(names)) {}
  const EncoderNames& names() const { return names_; }
  const Role& role() const { return names_.role; }
  std::string_view key() const { return names_.key; }

  /// Layers that the file holds: blocks of kind "layer".
  int layers(const Part& part) const { return part.blocks().front().second; }
  /// Width of the hidden states.
  virtual int width(const Part& part) const = 0;
  /// Width of the pooled output that the family takes, if it takes one. Throws Error naming the tensor that the file
  /// lacks for it.
  virtual int pooled_width(const Part& part, const EncoderUse&, const ModelSet&) const { return width(part); }

  /// What a job asks of memory. `dtype` is what its weights are kept in; it computes in fp32.
  virtual ComponentNeed need(const Part& part, const EncoderUse& use, at::ScalarType dtype,
                             const LargestPicture& picture) const = 0;
  /// Tokens that the longest prompt has in this encoder.
  std::int64_t tokens(const LargestPicture& picture) const {
    return reads_chunks() ? picture.chunk_tokens : picture.text_tokens;
  }

  /// Throws Error naming the tensor where the file has left out what the family reads of it under any clip_skip.
  virtual void check(const Part&, const EncoderUse&, const ModelSet&) const {}
  /// Throws Error naming the tensor where the file has left out the layer that is read under this clip_skip, and where
  /// there is no such layer.
  virtual void check_layer(const Part&, const EncoderUse&, std::int64_t /*clip_skip*/, const ModelSet&) const {}
  /// Throws Error naming both files where the tokenizer's data make tokens that the encoder lacks.
  virtual void check_tokenizer(const Part&, const std::string& /*data*/) const {}

  /// Whether a job's clip_skip chooses the layer that is read.
  virtual bool has_clip_skip() const { return false; }
  /// Whether it reads a long prompt in chunks of one size; else in one chunk, however long.
  virtual bool reads_chunks() const { return false; }
  /// The most tokens of a prompt of so many bytes of ASCII that names no textual inversion and ends no chunk early: one
  /// a byte, and an end and a blank that a tokenizer may put before a segment.
  virtual std::size_t most_tokens(std::size_t bytes) const { return bytes + 2; }
  virtual std::unique_ptr<PromptTokenizer> tokenizer(const std::string& data, const EncoderUse& use,
                                                     bool breaks) const = 0;

  /// Loads the encoder in `pieces`, in their blocks' order. `weights`: where its tensors lie, delivered to each piece's
  /// device; `data`: its tokenizer's; `inversions` must outlive the encoder. Throws what loading a piece throws.
  virtual std::unique_ptr<PromptEncoder> load(const EncoderUse& use, bool breaks, const Weights& weights,
                                              const std::string& data, const TextualInversions& inversions,
                                              std::vector<EncoderPiece> pieces) const = 0;

 private:
  EncoderNames names_;
};

/// Prefixes under which programs put an encoder: a name of its own, and below that "transformer.", "model." or nothing.
std::vector<std::string> encoder_prefixes(std::initializer_list<std::string_view> names);

/// The model text of a part that is a text encoder.
const TextEncoderModel& text_encoder(const Part& part);

/// The encoders that a job can name, one a key, in the order of the table of families.
std::vector<const TextEncoderModel*> text_encoders();

/// Their tokenizers' data, each once.
std::vector<const TokenizerData*> tokenizer_data();

/// The keys of both, in that order.
std::vector<std::string_view> encoder_keys();
std::vector<std::string_view> tokenizer_keys();

}  // namespace mgpu
