#pragma once

#include <cstdint>

#include "cli/job/job.h"
#include "core/model_set.h"

namespace mgpu {

/// Tokens of a job's longest prompt, as its encoders take them: start, end and padding count.
struct PromptLengths {
  std::int64_t whole = 0;       ///< in the encoders that read a prompt in one chunk; 0 where there is none
  std::int64_t in_chunks = 77;  ///< in those that read it in chunks of one size, of all chunks
};

/// Counts them with the encoders' own tokenizers, which are read only where a prompt may be longer than the shortest
/// text. Throws Error (exit 2) where a tokenizer's data cannot be read.
PromptLengths text_lengths(const Job& job, const ModelSet& set);

}  // namespace mgpu
