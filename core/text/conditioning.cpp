#include "core/text/conditioning.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

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

EncodedText encode_chunks(std::span<const Chunk> chunks, const ChunkRule& rule, const EncodeChunk& encode) {
  at::Tensor empty;
  if (std::ranges::any_of(chunks, weighted)) empty = encode(empty_chunk(rule, chunks.front().size())).hidden;
  std::vector<at::Tensor> hidden;
  at::Tensor pooled;
  for (const Chunk& chunk : chunks) {
    const EncodedText text = encode(chunk);
    hidden.push_back(weighted(chunk) ? apply_weights(text.hidden, empty, chunk) : text.hidden);
    if (hidden.size() == 1) pooled = text.pooled;
  }
  return {at::cat(hidden, 1), pooled};
}

Conditioning assemble(const TextRecipe& recipe, std::span<const EncodedText> texts) {
  MGPU_CHECK_EQ(texts.size(), recipe.encoders.size());
  std::vector<at::Tensor> contexts;
  Conditioning out;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (recipe.encoders[i].context) contexts.push_back(texts[i].hidden);
    if (recipe.encoders[i].pooled != EncoderUse::Pooled::None) out.pooled = texts[i].pooled;
  }
  const auto tokens = [](const at::Tensor& context) { return context.size(1); };
  const std::int64_t shortest = tokens(*std::ranges::min_element(contexts, {}, tokens));
  for (at::Tensor& context : contexts) context = context.narrow(1, 0, shortest);
  out.context = at::cat(contexts, 2);
  return out;
}

}  // namespace mgpu
