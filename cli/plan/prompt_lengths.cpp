#include "cli/plan/prompt_lengths.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string_view>

#include "core/text/text_encoder.h"

namespace mgpu {
namespace {

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
    const TextEncoderModel& encoder = *use_.encoder;
    const Part& part = set_.encoder(encoder.key());
    if (!tokenizer_) tokenizer_ = encoder.tokenizer(set_.tokenizer_of(encoder), use_, set_.text().breaks);
    return tokens_in(tokenizer_->chunks(prompt, [&](std::string_view name) {
      return inversions_.vectors(name, encoder.names().embedding, encoder.width(part));
    }));
  }

 private:
  const ModelSet& set_;
  const EncoderUse& use_;
  const TextualInversions& inversions_;
  std::unique_ptr<PromptTokenizer> tokenizer_;
};

}  // namespace

PromptLengths text_lengths(const Job& job, const ModelSet& set) {
  std::set<std::string_view> prompts;
  for (const ImageJob& image : job.images)
    for (const std::string_view prompt : prompts_of(image)) prompts.insert(prompt);
  const TextualInversions inversions(job.embedding_folders);
  PromptLengths out;
  for (const EncoderUse& use : set.text().encoders) {
    Counter counter(set, use, inversions);
    std::int64_t& most = use.encoder->reads_chunks() ? out.in_chunks : out.whole;
    most = std::max(most, use.shortest);
    for (const std::string_view prompt : prompts) {
      const std::size_t bound = use.encoder->most_tokens(prompt.size());
      if (is_plain(prompt) && bound <= static_cast<std::size_t>(most)) continue;
      most = std::max(most, static_cast<std::int64_t>(counter.count(prompt)));
    }
  }
  return out;
}

}  // namespace mgpu
