#include "core/kernels/vector.cuh"

// Normalisation with modulation, and the gated residual: memory-bound, one read and one write of the tokens each.
namespace mgpu::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxVectors = 8;  // a thread keeps its share of a row in registers: rows of up to 8 * 8 * 256 channels
constexpr float kEps = 1e-6f;

/// Sum over the block, in a fixed order, given to every thread.
__device__ float block_sum(float value) {
  __shared__ float partial[kThreads / 32];
  value = warp_sum(value);
  __syncthreads();  // the previous sum has been read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) total += partial[i];
  return total;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    layer_norm_modulate(const T* x, const T* shift, const T* scale, T* out, int channels) {
  x += static_cast<std::int64_t>(blockIdx.x) * channels;
  out += static_cast<std::int64_t>(blockIdx.x) * channels;
  const int vectors = channels / kVector;

  float row[kMaxVectors][kVector];
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < kMaxVectors; ++k) {
    const int v = threadIdx.x + k * kThreads;
    if (v < vectors) {
      load(x + v * kVector, row[k]);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum += row[k][i];
    }
  }
  const float mean = block_sum(sum) / static_cast<float>(channels);

  float square = 0.0f;
#pragma unroll
  for (int k = 0; k < kMaxVectors; ++k) {
    if (threadIdx.x + k * kThreads < vectors) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) square += (row[k][i] - mean) * (row[k][i] - mean);
    }
  }
  const float inverse = rsqrtf(block_sum(square) / static_cast<float>(channels) + kEps);

#pragma unroll
  for (int k = 0; k < kMaxVectors; ++k) {
    const int v = threadIdx.x + k * kThreads;
    if (v < vectors) {
      float a[kVector], b[kVector];
      load(shift + v * kVector, a);
      load(scale + v * kVector, b);
#pragma unroll
      for (int i = 0; i < kVector; ++i) row[k][i] = (row[k][i] - mean) * inverse * (1.0f + b[i]) + a[i];
      store(out + v * kVector, row[k]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gated_add(const T* x, const T* gate, const T* y, T* out, std::int64_t vectors, int row_vectors) {
  const std::int64_t v = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (v >= vectors) return;
  float a[kVector], g[kVector], b[kVector];
  load(x + v * kVector, a);
  load(gate + (v % row_vectors) * kVector, g);
  load(y + v * kVector, b);
#pragma unroll
  for (int i = 0; i < kVector; ++i) a[i] += g[i] * b[i];
  store(out + v * kVector, a);
}

}  // namespace

cudaError_t launch_layer_norm_modulate(Element element, const void* x, const void* shift, const void* scale, void* out,
                                       std::int64_t rows, int channels, cudaStream_t stream) {
  return with_element(element, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    layer_norm_modulate<T><<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        static_cast<const T*>(x), static_cast<const T*>(shift), static_cast<const T*>(scale), static_cast<T*>(out),
        channels);
  });
}

cudaError_t launch_gated_add(Element element, const void* x, const void* gate, const void* y, void* out,
                             std::int64_t rows, int channels, cudaStream_t stream) {
  const std::int64_t vectors = rows * channels / kVector;
  const auto blocks = static_cast<unsigned>((vectors + kThreads - 1) / kThreads);
  return with_element(element, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    gated_add<T><<<blocks, kThreads, 0, stream>>>(static_cast<const T*>(x), static_cast<const T*>(gate),
                                                  static_cast<const T*>(y), static_cast<T*>(out), vectors,
                                                  channels / kVector);
  });
}

}  // namespace mgpu::kernels
