#pragma once

namespace mgpu {

/// Puts LibTorch into the arithmetic that equal bytes rest on (job key `exact`): fp32 is IEEE fp32 (no TF32 in matrix
/// products or cuDNN), bf16 and fp16 products accumulate in fp32 to the end, cuDNN picks deterministic algorithms and
/// never by timing. MKL runs in its strict reproducible mode (MKL_CBWR=AUTO,STRICT): its products depend neither on
/// where a matrix lies in memory nor on the number of threads. CPU operations use one thread count throughout:
/// host_threads(). Where the environment says otherwise (MKL_CBWR, OMP_NUM_THREADS, MKL_NUM_THREADS) it wins.
/// The first call of every main(), the tests' included: MKL reads its mode at the first product.
void set_exact_arithmetic();

/// The same bytes on every x86-64 CPU that has AVX2 (`exact: portable`): ATen, oneDNN and MKL use AVX2's instructions
/// and no wider ones, and eight threads, whatever the machine and the environment say. To be called before LibTorch
/// computes anything; it cannot be undone in the process. Throws Error (exit 2) if the CPU has no AVX2, or if LibTorch
/// has already chosen other instructions.
void set_portable_arithmetic();

}  // namespace mgpu
