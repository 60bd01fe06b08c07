#include <algorithm>

#include "core/kernels/vector.cuh"

// What lies between an autoencoder's convolutions, on rows of an image with channels last: group normalisation with
// SiLU, bias and residual. Sums for the next normalisation are taken where an image is written, so that it is read
// once more only to be normalised.
namespace mgpu::kernels {
namespace {

constexpr int kGroups = 32;
constexpr int kThreads = 256;

/// Where pixel (row, column) of the result lies in the product, in pixels of `channels` values.
template <bool kUpsampled>
__device__ std::int64_t source_pixel(int row, int column, int width) {
  if (!kUpsampled) return static_cast<std::int64_t>(row) * width + column;
  // Phase (a, b) of source pixel (i, j) lies at position (i + a, j + b) of the four-phase product.
  const int a = row & 1, b = column & 1;
  const std::int64_t position = static_cast<std::int64_t>((row >> 1) + a) * (width / 2 + 1) + (column >> 1) + b;
  return position * 4 + a * 2 + b;
}

/// Adds up the threads' sums of 8 channels each, [lanes, channels, 2] -> [32, 2], in a fixed order.
__device__ void write_sums(const float (&sum)[kVector], const float (&square)[kVector], int vectors, int channels,
                           float* out) {
  extern __shared__ float shared[];  // [lanes][channels][2], then [channels][2] in its first part
  const int lanes = blockDim.x / vectors;
  float* mine = shared + static_cast<std::int64_t>(threadIdx.x) * kVector * 2;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    mine[2 * i] = sum[i];
    mine[2 * i + 1] = square[i];
  }
  __syncthreads();
  for (int k = threadIdx.x; k < 2 * channels; k += blockDim.x) {
    float total = 0.0f;
    for (int lane = 0; lane < lanes; ++lane) total += shared[lane * 2 * channels + k];
    shared[k] = total;  // column k is this thread's alone
  }
  __syncthreads();
  if (threadIdx.x >= 2 * kGroups) return;
  const int group = threadIdx.x / 2, which = threadIdx.x % 2, of_group = channels / kGroups;
  float total = 0.0f;
  for (int c = group * of_group; c < (group + 1) * of_group; ++c) total += shared[2 * c + which];
  out[threadIdx.x] = total;
}

template <typename T, bool kUpsampled>
__global__ void __launch_bounds__(kThreads) finish_rows(FinishRows work) {
  const T* product = static_cast<const T*>(work.product);
  const T* residual = static_cast<const T*>(work.residual);
  T* out = static_cast<T*>(work.out);
  const int vectors = work.channels / kVector, lanes = blockDim.x / vectors;
  const int channel = static_cast<int>(threadIdx.x) % vectors * kVector;
  const int row = static_cast<int>(blockIdx.y), first = static_cast<int>(blockIdx.x) * work.segment_width;
  const int last = min(first + work.segment_width, work.width);
  float bias[kVector], sum[kVector] = {}, square[kVector] = {};
  load(static_cast<const T*>(work.bias) + channel, bias);
  for (int column = first + static_cast<int>(threadIdx.x) / vectors; column < last; column += lanes) {
    float x[kVector];
    load(product + source_pixel<kUpsampled>(row, column, work.width) * work.channels + channel, x);
    const std::int64_t at = (static_cast<std::int64_t>(row) * work.width + column) * work.channels + channel;
#pragma unroll
    for (int i = 0; i < kVector; ++i) x[i] += bias[i];
    if (residual) {
      float r[kVector];
      load(residual + at, r);
#pragma unroll
      for (int i = 0; i < kVector; ++i) x[i] += r[i];
    }
    store(out + at, x);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float stored = static_cast<float>(static_cast<T>(x[i]));
      sum[i] += stored;
      square[i] += stored * stored;
    }
  }
  if (!work.sums) return;
  const std::int64_t entry = static_cast<std::int64_t>(row) * work.segments + blockIdx.x;
  write_sums(sum, square, vectors, work.channels, work.sums + entry * 2 * kGroups);
}

/// Sum over the block of doubles, in a fixed order; valid in thread 0.
__device__ double block_sum(double value) {
  __shared__ double partial[kThreads];
  partial[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  const double total = partial[0];
  __syncthreads();
  return total;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    group_affine(const float* sums, std::int64_t entries, double positions, const T* weight, const T* bias, float eps,
                 int channels, float* affine) {
  const int group = static_cast<int>(blockIdx.x), of_group = channels / kGroups;
  double sum = 0.0, square = 0.0;
  for (std::int64_t i = threadIdx.x; i < entries; i += kThreads) {
    const float2 entry = reinterpret_cast<const float2*>(sums)[i * kGroups + group];
    sum += entry.x;
    square += entry.y;
  }
  const double values = positions * of_group;
  const double mean = block_sum(sum) / values;
  const double variance = fmax(block_sum(square) / values - mean * mean, 0.0);
  const double inverse = rsqrt(variance + eps);
  for (int c = group * of_group + static_cast<int>(threadIdx.x); c < (group + 1) * of_group; c += kThreads) {
    const double scale = inverse * static_cast<double>(static_cast<float>(weight[c]));
    affine[c] = static_cast<float>(scale);
    affine[channels + c] = static_cast<float>(static_cast<double>(static_cast<float>(bias[c])) - mean * scale);
  }
}

template <typename T, bool kSilu>
__global__ void __launch_bounds__(kThreads)
    normalise_rows(const T* x, const float* affine, T* out, std::int64_t vectors, int channels) {
  const std::int64_t v = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (v >= vectors) return;
  const int channel = static_cast<int>(v % (channels / kVector)) * kVector;
  float a[kVector], scale[kVector], shift[kVector];
  load(x + v * kVector, a);
  load(affine + channel, scale);
  load(affine + channels + channel, shift);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    a[i] = a[i] * scale[i] + shift[i];
    if (kSilu) a[i] = __fdividef(a[i], 1.0f + __expf(-a[i]));
  }
  store(out + v * kVector, a);
}

/// The highest score of a part of a row, and the sum of exponentials relative to it.
struct Softmax {
  float most, sum;
};

__device__ Softmax merged(const Softmax& a, const Softmax& b) {
  const float most = fmaxf(a.most, b.most);
  if (most == -INFINITY) return {most, 0.0f};
  return {most, a.sum * __expf(a.most - most) + b.sum * __expf(b.most - most)};
}

__device__ Softmax block_merged(Softmax mine) {
  __shared__ Softmax partial[kThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    mine =
        merged(mine, {__shfl_xor_sync(0xffffffffu, mine.most, offset), __shfl_xor_sync(0xffffffffu, mine.sum, offset)});
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = mine;
  __syncthreads();
  Softmax total = partial[0];
#pragma unroll
  for (int i = 1; i < kThreads / 32; ++i) total = merged(total, partial[i]);
  return total;
}

template <int kWide>
struct alignas(kWide * sizeof(float)) Scores {
  float value[kWide];
};
template <typename T, int kWide>
struct alignas(kWide * sizeof(T)) Weights {
  T value[kWide];
};

template <typename T, int kWide>
__global__ void __launch_bounds__(kThreads)
    softmax_rows(const float* scores, float scale, T* out, std::int64_t columns) {
  using In = Scores<kWide>;
  const auto* row = reinterpret_cast<const In*>(scores + static_cast<std::int64_t>(blockIdx.x) * columns);
  auto* result = reinterpret_cast<Weights<T, kWide>*>(out + static_cast<std::int64_t>(blockIdx.x) * columns);
  const std::int64_t packs = columns / kWide;
  Softmax mine{-INFINITY, 0.0f};
  for (std::int64_t i = threadIdx.x; i < packs; i += kThreads) {
    const In in = row[i];
    float most = in.value[0] * scale;
#pragma unroll
    for (int k = 1; k < kWide; ++k) most = fmaxf(most, in.value[k] * scale);
    if (most > mine.most) mine = {most, mine.sum * __expf(mine.most - most)};
#pragma unroll
    for (int k = 0; k < kWide; ++k) mine.sum += __expf(in.value[k] * scale - mine.most);
  }
  const Softmax all = block_merged(mine);
  const float inverse = 1.0f / all.sum;
  for (std::int64_t i = threadIdx.x; i < packs; i += kThreads) {
    const In in = row[i];
    Weights<T, kWide> weights;
#pragma unroll
    for (int k = 0; k < kWide; ++k) weights.value[k] = static_cast<T>(__expf(in.value[k] * scale - all.most) * inverse);
    result[i] = weights;
  }
}

}  // namespace

cudaError_t launch_finish_rows(Element element, const FinishRows& work, cudaStream_t stream) {
  const int vectors = work.channels / kVector, threads = kThreads / vectors * vectors;
  const dim3 blocks(static_cast<unsigned>(work.segments), static_cast<unsigned>(work.rows));
  const std::size_t shared = work.sums ? static_cast<std::size_t>(threads) * kVector * 2 * sizeof(float) : 0;
  return with_element(element, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    if (work.upsampled)
      finish_rows<T, true><<<blocks, threads, shared, stream>>>(work);
    else
      finish_rows<T, false><<<blocks, threads, shared, stream>>>(work);
  });
}

cudaError_t launch_group_affine(Element element, const float* sums, std::int64_t entries, double positions,
                                const void* weight, const void* bias, float eps, int channels, float* affine,
                                cudaStream_t stream) {
  return with_element(element, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    group_affine<T><<<kGroups, kThreads, 0, stream>>>(sums, entries, positions, static_cast<const T*>(weight),
                                                      static_cast<const T*>(bias), eps, channels, affine);
  });
}

cudaError_t launch_normalise_rows(Element element, const void* x, const float* affine, bool silu, void* out,
                                  std::int64_t pixels, int channels, cudaStream_t stream) {
  const std::int64_t vectors = pixels * channels / kVector;
  const auto blocks = static_cast<unsigned>((vectors + kThreads - 1) / kThreads);
  return with_element(element, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const auto run = silu ? normalise_rows<T, true> : normalise_rows<T, false>;
    run<<<blocks, kThreads, 0, stream>>>(static_cast<const T*>(x), affine, static_cast<T*>(out), vectors, channels);
  });
}

cudaError_t launch_softmax_rows(Element element, const float* scores, float scale, void* out, std::int64_t rows,
                                std::int64_t columns, cudaStream_t stream) {
  return with_element(element, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const auto run = columns % 4 == 0 ? softmax_rows<T, 4> : softmax_rows<T, 1>;
    run<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(scores, scale, static_cast<T*>(out), columns);
  });
}

}  // namespace mgpu::kernels
