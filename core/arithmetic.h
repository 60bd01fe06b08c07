#pragma once

namespace mgpu {

/// Puts LibTorch into the arithmetic that the same job's same bytes rest on (design: "exact: true"): fp32 is IEEE fp32
/// (no TF32 in matrix products or cuDNN), bf16 and fp16 products accumulate in fp32 to the end, cuDNN picks
/// deterministic algorithms and never by timing. CPU operations keep one thread count throughout, LibTorch's own, which
/// follows OMP_NUM_THREADS. Called once, before anything is computed.
void set_exact_arithmetic();

}  // namespace mgpu
