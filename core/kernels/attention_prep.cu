#include "core/kernels/vector.cuh"

// What stands between the projections and attention, and between attention and the last projection of a single block.
namespace mgpu::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kHeadDim = 128;
constexpr int kLaneElements = kHeadDim / 32;  // a warp holds one head of one token
constexpr float kEps = 1e-6f;

template <typename T>
struct alignas(sizeof(T) * kLaneElements) LanePack {
  T value[kLaneElements];
};

/// One warp a (token, part, head), part 0, 1, 2 = q, k, v; q and k are normalised and turned, v is copied.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    split_norm_rotate(const T* qkv, std::int64_t qkv_stride, const T* q_norm, const T* k_norm, const float* cos,
                      const float* sin, T* q, T* k, T* v, std::int64_t warps, int heads) {
  const std::int64_t warp = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (warp >= warps) return;
  const int lane = threadIdx.x % 32;
  const std::int64_t token = warp / (3 * heads);
  const int part = static_cast<int>(warp / heads % 3), head = static_cast<int>(warp % heads);

  using Lanes = LanePack<T>;
  const T* source = qkv + token * qkv_stride + (static_cast<std::int64_t>(part) * heads + head) * kHeadDim;
  T* target = (part == 0 ? q : part == 1 ? k : v) + (token * heads + head) * kHeadDim;
  Lanes pack = reinterpret_cast<const Lanes*>(source)[lane];
  if (part < 2) {
    float x[kLaneElements], square = 0.0f;
#pragma unroll
    for (int i = 0; i < kLaneElements; ++i) {
      x[i] = static_cast<float>(pack.value[i]);
      square += x[i] * x[i];
    }
    const float inverse = rsqrtf(warp_sum(square) / kHeadDim + kEps);
    const Lanes weight = reinterpret_cast<const Lanes*>(part == 0 ? q_norm : k_norm)[lane];
#pragma unroll
    for (int i = 0; i < kLaneElements; ++i) x[i] *= inverse * static_cast<float>(weight.value[i]);
    const std::int64_t angle = token * (kHeadDim / 2) + lane * (kLaneElements / 2);
#pragma unroll
    for (int i = 0; i < kLaneElements / 2; ++i) {
      const float c = cos[angle + i], s = sin[angle + i];
      pack.value[2 * i] = static_cast<T>(c * x[2 * i] - s * x[2 * i + 1]);
      pack.value[2 * i + 1] = static_cast<T>(s * x[2 * i] + c * x[2 * i + 1]);
    }
  }
  reinterpret_cast<Lanes*>(target)[lane] = pack;
}

/// GELU by its tanh approximation, as the models were trained.
__device__ __forceinline__ float gelu_tanh(float x) {
  constexpr float kSqrt2OverPi = 0.7978845608028654f;
  return 0.5f * x * (1.0f + tanhf(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    concat_gelu(const T* a, std::int64_t a_stride, int a_vectors, const T* b, std::int64_t b_stride, T* out,
                std::int64_t vectors, int row_vectors) {
  const std::int64_t v = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (v >= vectors) return;
  const std::int64_t row = v / row_vectors;
  const int column = static_cast<int>(v % row_vectors);
  float x[kVector];
  if (column < a_vectors) {
    load(a + row * a_stride + column * kVector, x);
  } else {
    load(b + row * b_stride + (column - a_vectors) * kVector, x);
#pragma unroll
    for (int i = 0; i < kVector; ++i) x[i] = gelu_tanh(x[i]);
  }
  store(out + v * kVector, x);
}

}  // namespace

cudaError_t launch_split_norm_rotate(Element element, const void* qkv, std::int64_t qkv_stride, const void* q_norm,
                                     const void* k_norm, const float* cos, const float* sin, void* q, void* k, void* v,
                                     std::int64_t rows, int heads, cudaStream_t stream) {
  const std::int64_t warps = rows * 3 * heads;
  const auto blocks = static_cast<unsigned>((warps * 32 + kThreads - 1) / kThreads);
  return with_element(element, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    split_norm_rotate<T><<<blocks, kThreads, 0, stream>>>(
        static_cast<const T*>(qkv), qkv_stride, static_cast<const T*>(q_norm), static_cast<const T*>(k_norm), cos, sin,
        static_cast<T*>(q), static_cast<T*>(k), static_cast<T*>(v), warps, heads);
  });
}

cudaError_t launch_concat_gelu(Element element, const void* a, std::int64_t a_stride, int a_channels, const void* b,
                               std::int64_t b_stride, int b_channels, void* out, std::int64_t rows,
                               cudaStream_t stream) {
  const int row_vectors = (a_channels + b_channels) / kVector;
  const std::int64_t vectors = rows * row_vectors;
  const auto blocks = static_cast<unsigned>((vectors + kThreads - 1) / kThreads);
  return with_element(element, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    concat_gelu<T><<<blocks, kThreads, 0, stream>>>(static_cast<const T*>(a), a_stride, a_channels / kVector,
                                                    static_cast<const T*>(b), b_stride, static_cast<T*>(out), vectors,
                                                    row_vectors);
  });
}

}  // namespace mgpu::kernels
