#pragma once

#include <cstdint>
#include <vector>

#include "core/slabs.h"
#include "core/tiling.h"

namespace mgpu {

/// How the autoencoder codes a picture: on one device; its rows dealt to several, with the same bits; the levels of the
/// largest images slab by slab, slower in less memory, with the same bits; or tile by tile, with statistics estimated
/// from a smaller copy.
enum class CodingWay : std::uint8_t { Whole, Parallel, Slabs, Tiled };

/// What one way of coding the job's largest picture asks of a device beside the weights.
struct CodingNeed {
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

  CodingWay way = CodingWay::Whole;
  Tiling tiling = {};
  Slabs slabs = {};
  double slowness = 1.0;  ///< times the time that one device takes for the whole picture, on all devices together
  Need on_gpu = {}, on_cpu = {};
};

}  // namespace mgpu
