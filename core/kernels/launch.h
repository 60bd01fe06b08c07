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

/// Rows of an image [rows, width, channels] that a convolution left without its bias; `upsampled` ones are dealt from
/// the four phases of a 2x2 convolution (core/image_nn.h). residual and sums may be null.
struct FinishRows {
  const void* product;
  const void* bias;
  const void* residual;
  void* out;
  float* sums;  // [rows, segments, 32, 2]
  int rows, width, channels;
  int segments, segment_width;  // in pixels
  bool upsampled;
};
cudaError_t launch_finish_rows(Element element, const FinishRows& work, cudaStream_t stream);

/// sums [entries, 32, 2] over `positions` pixels -> affine [2, channels].
cudaError_t launch_group_affine(Element element, const float* sums, std::int64_t entries, double positions,
                                const void* weight, const void* bias, float eps, int channels, float* affine,
                                cudaStream_t stream);

/// out = x * affine[0] + affine[1], through SiLU where asked.
cudaError_t launch_normalise_rows(Element element, const void* x, const float* affine, bool silu, void* out,
                                  std::int64_t pixels, int channels, cudaStream_t stream);

/// Softmax of each row of scores [rows, columns] times scale; rounded to the element's type.
cudaError_t launch_softmax_rows(Element element, const float* scores, float scale, void* out, std::int64_t rows,
                                std::int64_t columns, cudaStream_t stream);

}  // namespace mgpu::kernels
