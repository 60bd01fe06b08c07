#include "cli/text_lengths.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

#include "core/text/clip_tokenizer.h"
#include "core/text/prompt.h"
#include "core/text/t5_tokenizer.h"
#include "core/text/textual_inversion.h"

namespace mgpu {
namespace {

constexpr std::size_t kClipChunk = 77, kMovesWhole = 8;  // tokens

/// The most tokens that a prompt of so many bytes of ASCII can have where it names no textual inversion and breaks no
/// chunk: each is at least a byte of it, or the blank that T5 puts before a segment in the place of a parenthesis.
std::size_t most_t5_tokens(std::size_t bytes) {
  return bytes + 2;
}
std::size_t most_clip_tokens(std::size_t bytes) {
  const std::size_t filled = kClipChunk - 2 - (kMovesWhole - 1);  // a short segment moves whole to the next chunk
  return kClipChunk * std::max<std::size_t>(1, (bytes + filled - 1) / filled);
}

/// Whether the length of a prompt in bytes says enough.
bool is_plain(std::string_view prompt) {
  return std::ranges::all_of(prompt, [](char c) { return static_cast<unsigned char>(c) < 0x80; }) &&
         prompt.find("embedding:") == prompt.npos && prompt.find("BREAK") == prompt.npos;
}

std::size_t tokens_in(const std::vector<Chunk>& chunks) {
  std::size_t out = 0;
  for (const Chunk& chunk : chunks) out += chunk.size();
  return out;
}

/// Counts prompts' tokens for one of a family's encoders.
class Counter {
 public:
  Counter(const ModelSet& set, const EncoderUse& use, const TextualInversions& inversions)
      : set_(set), use_(use), inversions_(inversions) {}

  std::size_t count(std::string_view prompt) {
    const bool is_t5 = use_.encoder == TextEncoder::T5xxl;
    const Part& part = set_.encoder(use_.encoder);
    const auto find = [&](std::string_view name) {
      return inversions_.vectors(name, use_.encoder, is_t5 ? part.t5().hidden : part.clip().hidden);
    };
    if (is_t5) {
      if (!t5_) t5_.emplace(set_.t5xxl_tokenizer);
      const ChunkRule rule = t5_->chunks(static_cast<std::size_t>(use_.shortest));
      return tokens_in(tokenize(
          prompt, [&](std::string_view text) { return t5_->encode(text); }, rule, find));
    }
    if (!clip_) clip_.emplace(set_.clip_tokenizer);
    ChunkRule rule = clip_->chunks(clip_->end());
    rule.breaks = set_.text().breaks;
    return tokens_in(tokenize(
        prompt, [&](std::string_view text) { return clip_->encode(text); }, rule, find));
  }

 private:
  const ModelSet& set_;
  const EncoderUse& use_;
  const TextualInversions& inversions_;
  std::optional<T5Tokenizer> t5_;
  std::optional<ClipTokenizer> clip_;
};

}  // namespace

TextLengths text_lengths(const Job& job, const ModelSet& set) {
  std::set<std::string_view> prompts;
  for (const ImageJob& image : job.images)
    for (const std::string_view prompt : prompts_of(image)) prompts.insert(prompt);
  const TextualInversions inversions(job.embedding_folders);
  TextLengths out;
  for (const EncoderUse& use : set.text().encoders) {
    const bool is_t5 = use.encoder == TextEncoder::T5xxl;
    Counter counter(set, use, inversions);
    std::int64_t& most = is_t5 ? out.t5 : out.clip;
    if (is_t5) most = std::max(most, use.shortest);
    for (const std::string_view prompt : prompts) {
      const std::size_t bound = is_t5 ? most_t5_tokens(prompt.size()) : most_clip_tokens(prompt.size());
      if (is_plain(prompt) && bound <= static_cast<std::size_t>(most)) continue;
      most = std::max(most, static_cast<std::int64_t>(counter.count(prompt)));
    }
  }
  return out;
}

}  // namespace mgpu
