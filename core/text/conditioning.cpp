#include "core/text/conditioning.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace mgpu {
namespace {

bool weighted(const Chunk& tokens) {
  return std::ranges::any_of(tokens, [](const Token& token) { return token.weight != 1.0; });
}

}  // namespace

at::Tensor apply_weights(const at::Tensor& z, const at::Tensor& empty, const Chunk& tokens) {
  const at::Tensor weight = at::empty({1, static_cast<std::int64_t>(tokens.size()), 1}, at::kFloat);
  for (std::size_t i = 0; i < tokens.size(); ++i) weight.data_ptr<float>()[i] = static_cast<float>(tokens[i].weight);
  const at::Tensor w = weight.to(z.device());
  return at::where(w.eq(1.0), z, (z - empty) * w + empty);
}

at::Tensor token_ids(const Chunk& tokens) {
  at::Tensor ids = at::empty({1, static_cast<std::int64_t>(tokens.size())}, at::kLong);
  for (std::size_t i = 0; i < tokens.size(); ++i) ids.data_ptr<std::int64_t>()[i] = tokens[i].id;
  return ids;
}

ClipOutput encode_clip(std::string_view prompt, const ClipTokenizer& tokenizer, const ChunkRule& rule,
                       const ClipEncoder& encoder, const Ops& ops) {
  const auto chunks = tokenize(
      prompt, [&](std::string_view text) { return tokenizer.encode(text); }, rule);
  at::Tensor empty;
  if (std::ranges::any_of(chunks, weighted)) {
    empty = encoder.forward(token_ids(empty_chunk(rule, chunks.front().size())), ops).hidden;
  }
  std::vector<at::Tensor> hidden;
  at::Tensor pooled;
  for (const Chunk& chunk : chunks) {
    const ClipOutput output = encoder.forward(token_ids(chunk), ops);
    hidden.push_back(weighted(chunk) ? apply_weights(output.hidden, empty, chunk) : output.hidden);
    if (!pooled.defined()) pooled = output.pooled;
  }
  return {at::cat(hidden, 1), pooled};
}

at::Tensor encode_t5(std::string_view prompt, const T5Tokenizer& tokenizer, const ChunkRule& rule,
                     const T5Encoder& encoder, const Ops& ops) {
  const auto chunks = tokenize(
      prompt, [&](std::string_view text) { return tokenizer.encode(text); }, rule);
  const Chunk& tokens = chunks.front();  // T5 has but one, however long
  const at::Tensor z = encoder.forward(token_ids(tokens), ops);
  if (!weighted(tokens)) return z;
  return apply_weights(z, encoder.forward(token_ids(empty_chunk(rule, tokens.size())), ops), tokens);
}

}  // namespace mgpu
