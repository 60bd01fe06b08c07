#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace mgpu {

/// What the context and the libraries' modules take of a GPU until a run has measured it there: 1.0 GiB on an H200.
inline constexpr std::uint64_t kAssumedDriverBytes = std::uint64_t{1126} << 20;

/// What this process's context and the libraries' modules take of a GPU, beside the memory that LibTorch reserved.
/// Other programs' memory on the same GPU is not counted. For several threads at once.
class DriverShare {
 public:
  /// How the GPU is asked. Nothing where there is no answer.
  struct Source {
    std::function<std::optional<std::uint64_t>()> own;   ///< bytes of this process, as NVML lists them
    std::function<std::optional<std::uint64_t>()> used;  ///< bytes of every program
  };

  /// To be made before this process has a context on the GPU: what is used then is others'. `has_context`: it is too
  /// late for that, and what is used beyond kAssumedDriverBytes and `reserved` counts as others'.
  DriverShare(Source source, bool has_context, std::uint64_t reserved = 0);

  /// Bytes now; `reserved`: by LibTorch's allocator. NVML's answer for this process; without it the difference from
  /// before, where others that came or went since are counted wrongly, but never as more than kMostPlausible.
  std::uint64_t bytes(std::uint64_t reserved) const;

  /// Whether NVML says what is ours, so that others do not matter.
  bool is_exact() const { return lists_us_ && source_.own().has_value(); }

  static constexpr std::uint64_t kMostPlausible = std::uint64_t{2} << 30;

 private:
  Source source_;
  bool lists_us_ = true;  ///< NVML's process of our number is us: not where it was there before our context
  std::uint64_t others_ = 0;
};

/// The share of a GPU of this process. Made at the first call, which is to come before the GPU has a context where that
/// can be: see note_gpus(). `reserved` as DriverShare's.
const DriverShare& driver_share(int gpu, std::uint64_t reserved);

/// Makes the shares of all GPUs that have no context yet and NVML knows. Opens none itself.
void note_gpus();

}  // namespace mgpu
