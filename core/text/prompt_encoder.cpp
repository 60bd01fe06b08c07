#include "core/text/prompt_encoder.h"

#include <ATen/ATen.h>

#include <vector>

namespace mgpu {

ChunkTokens chunk_tokens(const Chunk& chunk) {
  const at::Tensor ids = at::empty({1, static_cast<std::int64_t>(chunk.size())}, at::kLong);
  auto* id = ids.data_ptr<std::int64_t>();
  std::vector<at::Tensor> vectors;
  for (const Token& token : chunk) {
    *id++ = token.vector.defined() ? -1 - static_cast<std::int64_t>(vectors.size()) : token.id;
    if (token.vector.defined()) vectors.push_back(token.vector);
  }
  return {ids, vectors.empty() ? at::Tensor() : at::stack(vectors)};
}

}  // namespace mgpu
