#include "core/text/prompt.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/error.h"

namespace mgpu {
namespace {

constexpr std::size_t kMovesWhole = 8;  // segments of fewer tokens are never cut

/// Fills chunks from the front.
class Chunker {
 public:
  explicit Chunker(const ChunkRule& rule) : rule_(rule) { open(); }

  void add(const std::vector<Token>& tokens) {
    const bool whole = tokens.size() < kMovesWhole;
    std::size_t next = 0;
    while (next < tokens.size()) {
      const std::size_t left = tokens.size() - next;
      const std::size_t take = left <= room() ? left : whole ? 0 : room();
      const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(next);
      chunks_.back().insert(chunks_.back().end(), first, first + static_cast<std::ptrdiff_t>(take));
      next += take;
      if (next < tokens.size()) begin_next();
    }
  }

  void begin_next() {
    close();
    open();
  }

  std::vector<Chunk> finish() {
    if (chunks_.size() > 1 && chunks_.back().size() == (rule_.start ? 1 : 0)) {
      chunks_.pop_back();  // nothing follows the last BREAK
    } else {
      close();
    }
    return std::move(chunks_);
  }

 private:
  std::size_t room() const { return rule_.longest - 1 - chunks_.back().size(); }  // the end token takes one

  void open() {
    chunks_.emplace_back();
    if (rule_.start) chunks_.back().push_back({*rule_.start});
  }

  void close() {
    Chunk& chunk = chunks_.back();
    chunk.push_back({rule_.end});
    if (chunk.size() < rule_.shortest) chunk.resize(rule_.shortest, {rule_.pad});
  }

  const ChunkRule& rule_;
  std::vector<Chunk> chunks_;
};

std::vector<Token> text_tokens(const std::vector<std::int64_t>& ids, double weight) {
  std::vector<Token> tokens;
  for (const std::int64_t id : ids) tokens.push_back({id, weight});
  return tokens;
}

std::vector<Token> vector_tokens(const at::Tensor& vectors, double weight) {
  std::vector<Token> tokens;
  for (const at::Tensor& vector : vectors.unbind(0)) tokens.push_back({.id = 0, .weight = weight, .vector = vector});
  return tokens;
}

}  // namespace

std::vector<Chunk> tokenize(std::string_view prompt, const EncodeText& encode, const ChunkRule& rule,
                            const FindVectors& find) {
  MGPU_CHECK(rule.longest > kMovesWhole + 2, "a chunk of {} tokens", rule.longest);
  Chunker chunker(rule);
  for (const Segment& segment : parse_weights(prompt)) {
    for (const PromptPart& part : split_marks(segment.text, rule.breaks, find != nullptr)) {
      if (part.kind == PromptPart::Kind::Break) {
        chunker.begin_next();
      } else if (part.kind == PromptPart::Kind::Inversion) {
        chunker.add(vector_tokens(find(part.text), segment.weight));
      } else {
        chunker.add(text_tokens(encode(part.text), segment.weight));
      }
    }
  }
  return chunker.finish();
}

Chunk empty_chunk(const ChunkRule& rule, std::size_t length) {
  Chunk chunk;
  if (rule.start) chunk.push_back({*rule.start});
  chunk.push_back({rule.end});
  chunk.resize(length, {rule.pad});
  return chunk;
}

}  // namespace mgpu
