#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace mgpu {

/// How many values of a tensor a patch is given at once, in whole rows: at least one.
inline constexpr std::int64_t kPatchedAtOnce = std::int64_t{4} << 20;
/// What patching takes for a moment, beside the tensor as stored and as kept: those values in fp32, and a patch's own
/// work of up to twice as much.
inline constexpr std::uint64_t kPatchingBytes = 3 * 4 * static_cast<std::uint64_t>(kPatchedAtOnce);

/// Changes to a part's weights on their way in from the file, such as a LoRA's: Part::patches, which every Weights of
/// the part carries. Resident and streamed blocks, layers that are read anew, text encoders and autoencoders all get
/// the changed values. A weight that is touched is kept in the type that is computed in, even when the file packs it.
class WeightPatches {
 public:
  virtual ~WeightPatches() = default;
  /// Whether the tensor of this full name (as the file spells it) is changed.
  virtual bool touches(std::string_view name) const = 0;
  /// Changes rows first..first+n-1 of the tensor in place. `values` [n, ...] is contiguous fp32, with the file's scales
  /// applied, on the device that computes with the weight; a scalar comes as [1]. The caller rounds it once afterwards.
  /// The ranges depend on the tensor's shape alone, so that equal devices give equal bytes. The threads of several
  /// devices call this at the same time.
  virtual void apply(std::string_view name, std::int64_t first, const at::Tensor& values) const = 0;
  /// Whether apply() must see all rows at once: a change that depends on several rows.
  virtual bool needs_all_rows(std::string_view) const { return false; }
};

}  // namespace mgpu
