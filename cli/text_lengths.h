#pragma once

#include <cstdint>

#include "cli/job.h"
#include "core/model_set.h"

namespace mgpu {

/// Tokens of a job's longest prompt, as its encoders take them: start, end and padding count.
struct TextLengths {
  std::int64_t t5 = 0;     ///< 0 where the family has no T5
  std::int64_t clip = 77;  ///< of all chunks
};

/// Counts them with the encoders' own tokenizers, which are read only where a prompt may be longer than the shortest
/// text. Throws Error (exit 2) where a tokenizer's data cannot be read.
TextLengths text_lengths(const Job& job, const ModelSet& set);

}  // namespace mgpu
