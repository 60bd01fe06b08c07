#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/kernels/launch.h"

// Eight neighbouring elements as floats, moved in 16-byte pieces.
namespace mgpu::kernels {

constexpr int kVector = 8;

template <typename T>
struct alignas(sizeof(T) * kVector >= 16 ? 16 : sizeof(T) * kVector) Pack {
  T value[kVector];
};

template <typename T>
__device__ __forceinline__ void load(const T* source, float (&out)[kVector]) {
  const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(source);
#pragma unroll
  for (int i = 0; i < kVector; ++i) out[i] = static_cast<float>(pack.value[i]);
}

template <typename T>
__device__ __forceinline__ void store(T* target, const float (&in)[kVector]) {
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < kVector; ++i) pack.value[i] = static_cast<T>(in[i]);
  *reinterpret_cast<Pack<T>*>(target) = pack;
}

/// Calls f with a null pointer of the element's type.
template <typename F>
cudaError_t with_element(Element element, F&& f) {
  switch (element) {
    case Element::F32:
      f(static_cast<float*>(nullptr));
      break;
    case Element::F16:
      f(static_cast<__half*>(nullptr));
      break;
    case Element::BF16:
      f(static_cast<__nv_bfloat16*>(nullptr));
      break;
  }
  return cudaGetLastError();
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

}  // namespace mgpu::kernels
