#pragma once

#include <vector>

#include "core/text/encoder_pieces.h"

namespace mgpu::test {

/// An encoder cut into pieces of so many blocks, each on a virtual CPU device with a thread of its own; one piece alone
/// runs in the caller's.
std::vector<EncoderPiece> cpu_pieces(const std::vector<int>& blocks);

}  // namespace mgpu::test
