#pragma once

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/slab_layout.h"
#include "core/tiling.h"

namespace mgpu {

// What the components of a job ask of memory and time. Each component's code says it, beside the code that asks it,
// from headers alone; a plan is made from it.

/// The phases of a job, in order: all prompts are encoded before the first sampling, and a component leaves its device
/// with its phase.
enum class Phase : std::uint8_t { Encode, Sample, Decode };
inline constexpr std::array kPhases = {Phase::Encode, Phase::Sample, Phase::Decode};
inline std::string_view name_of(Phase phase) {
  constexpr std::array<std::string_view, 3> kNames = {"encode", "sample", "decode"};
  return kNames[static_cast<std::size_t>(phase)];
}

/// A number for each phase.
template <class T>
struct Phases {
  T encode{};
  T sample{};
  T decode{};

  T& operator[](Phase phase) { return phase == Phase::Encode ? encode : phase == Phase::Sample ? sample : decode; }
  const T& operator[](Phase phase) const { return const_cast<Phases&>(*this)[phase]; }
};
using PhaseBytes = Phases<std::uint64_t>;
inline std::uint64_t highest(const PhaseBytes& bytes) {
  return std::max({bytes.encode, bytes.sample, bytes.decode});
}

/// The types that a job's components compute in.
struct ComputeDtypes {
  at::ScalarType unet = at::kFloat;
  at::ScalarType vae = at::kFloat;
  std::optional<at::ScalarType> encoders;  ///< absent: weights as stored; their activations are fp32 in any case
};

/// The most that a job's pictures ask for.
struct LargestPicture {
  std::int64_t width = 0;  ///< in pixels
  std::int64_t height = 0;
  std::int64_t text_tokens = 256;  ///< of the longest prompt, as the diffusion model reads it
  std::int64_t chunk_tokens = 77;  ///< of the longest prompt in an encoder that reads it in chunks
  std::int64_t timesteps = 1;      ///< noise levels at which a run evaluates the model
  std::int64_t texts = 1;          ///< conditionings of a picture, each a pass a level at least
  std::int64_t batch = 1;          ///< pictures of a run
  std::int64_t prompts = 1;        ///< different ones of the whole job
  Tiling tiling = {};              ///< where pictures are decoded in tiles ...
  bool tiling_is_fixed = false;    ///< ... and may not be in smaller ones

  std::int64_t pixels() const { return width * height; }
};

/// How the autoencoder codes a picture: on one device; its rows dealt to several, with the same bits; the levels of the
/// largest images slab by slab, slower in less memory, with the same bits; or tile by tile, with statistics estimated
/// from a smaller copy.
enum class DecodeMode : std::uint8_t { Whole, Parallel, Slabs, Tiled };

/// What one way of coding the job's largest picture asks of a device beside the weights.
struct DecodeNeed {
  /// Bytes at a moment of the work, in parts.
  struct Moment {
    std::uint64_t fixed = 0;      ///< on every device
    std::uint64_t shared = 0;     ///< times the device's share of the picture
    std::uint64_t exchanged = 0;  ///< the same, where it shares the picture with others
  };

  /// On devices of a kind.
  struct Need {
    std::int64_t units = 1;  ///< that the picture is dealt in
    std::vector<Moment> moments;

    /// Of a device that has that share of the picture, 0 to 1.
    std::uint64_t bytes(double share) const;
    /// Each device's share, in proportion to their speeds.
    std::vector<double> shares(const std::vector<double>& speeds) const;
  };

  DecodeMode mode = DecodeMode::Whole;
  Tiling tiling = {};
  Slabs slabs = {};
  double slowness = 1.0;  ///< times the time that one device takes for the whole picture, on all devices together
  Need on_gpu = {}, on_cpu = {};
};

/// The blocks of one kind, in the order in which they run. Unequal ones are listed one by one; else they are equal.
struct BlockNeed {
  std::string kind;  ///< "double", "single", "layer", ...
  int count = 0;
  std::uint64_t bytes = 0;                     ///< of all of them, in the type that they are kept in
  std::vector<std::uint64_t> bytes_each = {};  ///< bytes of each; empty: equal
  std::vector<double> times = {};              ///< relative time of each, comparable across the component; empty: 1
  std::vector<std::uint64_t> precomputed =
      {};  ///< of each block's bytes those that serve only before the steps; empty: none
  std::vector<std::uint64_t> bytes_per_pass =
      {};  ///< bytes that each keeps of a pass until another block takes them: skips
  std::vector<std::uint64_t> bytes_per_prompt =
      {};  ///< bytes that a run computes ahead for each, for one text; empty: none

  std::uint64_t bytes_of(int block) const;
  std::uint64_t precomputed_of(int block) const {
    return precomputed.empty() ? 0 : precomputed[static_cast<std::size_t>(block)];
  }
  /// What every step reads of a block.
  std::uint64_t bytes_of_step(int block) const { return bytes_of(block) - precomputed_of(block); }
  double time_of(int block) const { return times.empty() ? 1.0 : times[static_cast<std::size_t>(block)]; }
};

/// One component of a job: what headers and the compute type tell.
struct ComponentNeed {
  std::string name;  ///< unet, clip_l, t5xxl, vae
  Phase phase = Phase::Sample;
  std::vector<BlockNeed> blocks;
  std::uint64_t bytes = 0;       ///< of all its weights; more than its blocks', since stem and head count too
  std::uint64_t activation = 0;  ///< highest need beside the weights on a device that runs any of its blocks, for the
                                 ///< job's largest picture
  std::uint64_t precompute_activation =
      0;                               ///< highest need while what serves only before the steps is read from the file
  std::uint64_t pass_bytes = 0;        ///< bytes that travel with a pass, and lie on the device that it waits for
  std::uint64_t bytes_per_prompt = 0;  ///< bytes that each device with any of its blocks keeps for a text
  std::uint64_t head = 0;    ///< weights behind the last block; what is in no block and not here precedes the first
  bool indivisible = false;  ///< stays on one device: the autoencoder
  /// The first kind's block i and the last kind's block count-1-i share a skip and so a device, as does what is between
  /// them with the innermost pair: a UNet.
  bool skip_paired = false;
  std::uint64_t replicated_bytes =
      0;  ///< of its weights, what every device that runs any of its blocks holds a copy of
  /// What lies on the device of its first block as long as its weights do: all conditionings, a run's latents.
  std::uint64_t latent_device_bytes = 0;
  std::uint64_t latents = 0;  ///< of one picture, which lie there as long as its run is on its way
  /// `activation` and `precompute_activation` on a CPU device, whose operations are LibTorch's own: unfused, and
  /// without a GPU's workspaces. Absent: the same.
  std::optional<std::uint64_t> activation_on_cpu = {}, precompute_activation_on_cpu = {};
  /// The autoencoder: the time of decoding a picture, spread over the passes that sample it, each of which counts 1.
  double time_a_pass = 0.0;
  /// The autoencoder: the ways of coding pictures, in the order in which they are preferred. What they ask comes on top
  /// of `activation`.
  std::vector<DecodeNeed> modes = {};

  /// Relative time of all its blocks.
  double time() const;
};

}  // namespace mgpu
