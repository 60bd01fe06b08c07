#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "core/ops.h"
#include "core/text/conditioning.h"
#include "core/text/prompt.h"

namespace mgpu {

/// One of a family's text encoders, loaded, with its tokenizer.
class PromptEncoder {
 public:
  virtual ~PromptEncoder() = default;

  /// What a family takes from this encoder for a prompt, to be put together by assemble(). `clip_skip` as layer_under()
  /// reads it. It lies on the device of the encoder's last block. Throws Error (exit 2) for a layer that the encoder
  /// lacks and for textual inversions that are not there.
  virtual EncodedText encode(std::string_view prompt, std::int64_t clip_skip, const Ops& ops) const = 0;
};

/// A chunk as encoders take it.
struct ChunkTokens {
  at::Tensor ids;      ///< [1, N] int64 on the CPU; an id -1 - i stands for row i of `vectors`
  at::Tensor vectors;  ///< [n, C], or undefined
};
ChunkTokens chunk_tokens(const Chunk& chunk);

}  // namespace mgpu
