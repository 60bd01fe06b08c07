#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// The raw side of core/kernels: pointers and sizes, no ATen, because ATen's headers cost a .cu file a minute of compile
// time. Strides count elements. Every pointer and row stride keeps 16-byte alignment (8 for split_norm_rotate). Returns
// the launch's status.
namespace mgpu::kernels {

enum class Element { F32, F16, BF16 };

cudaError_t launch_layer_norm_modulate(Element element, const void* x, const void* shift, const void* scale, void* out,
                                       std::int64_t rows, int channels, cudaStream_t stream);

cudaError_t launch_gated_add(Element element, const void* x, const void* gate, const void* y, void* out,
                             std::int64_t rows, int channels, cudaStream_t stream);

/// `qkv_stride` from row to row; q, k, v point at the first row to write.
cudaError_t launch_split_norm_rotate(Element element, const void* qkv, std::int64_t qkv_stride, const void* q_norm,
                                     const void* k_norm, const float* cos, const float* sin, void* q, void* k, void* v,
                                     std::int64_t rows, int heads, cudaStream_t stream);

cudaError_t launch_concat_gelu(Element element, const void* a, std::int64_t a_stride, int a_channels, const void* b,
                               std::int64_t b_stride, int b_channels, void* out, std::int64_t rows,
                               cudaStream_t stream);

}  // namespace mgpu::kernels
