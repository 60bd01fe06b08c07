#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

namespace mgpu {

/// How an encoder wants its tokens.
struct ChunkRule {
  std::optional<std::int64_t> start;  ///< leads every chunk
  std::int64_t end = 0;               ///< follows the last token of every chunk
  std::int64_t pad = 0;               ///< fills a chunk up to `shortest`
  std::size_t shortest = 0;           ///< tokens, with start and end
  std::size_t longest = std::numeric_limits<std::size_t>::max();
  bool breaks = false;  ///< the word BREAK ends a chunk, which is padded; else it is a word like others
};

}  // namespace mgpu
