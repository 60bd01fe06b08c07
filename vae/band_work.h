#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "core/exchange.h"
#include "vae/autoencoder.h"

namespace mgpu {

struct Team;

/// The bands that z [1, C, h, w] is decoded in, and an image [1, 3, H, W] is encoded in. `rules`: band_rules() of the
/// coder's device, but in tests.
Bands bands_of(const Decoder& decoder, const at::Tensor& z, const std::optional<BandRules>& rules);
Bands bands_of(const Encoder& encoder, const at::Tensor& image, const std::optional<BandRules>& rules);

/// One image dealt to a team in bands: which device has which units, and the exchange between them. A device may get
/// none. Those that have some call the same functions in the same order, each on its own thread, as their parts of
/// `together`, which outlives this.
class BandWork {
 public:
  BandWork(const Bands& bands, const Team& team, JointWork& together);

  const Bands& bands() const { return bands_; }
  const RowRange& units(std::size_t device) const { return shares_[device]; }
  /// Whether it is the first that has units.
  bool is_first(std::size_t device) const { return device == workers_.front(); }

  /// A device's rows of the image [1, C, H, W], at any of the sizes that it takes on its way; without values where the
  /// device has none, as are those of the functions below.
  ImageRows rows(std::size_t device, const at::Tensor& image, at::Device on, at::ScalarType dtype);
  /// What steps make of a device's rows. Neighbours' edge rows and all devices' statistics are exchanged.
  ImageRows run(std::size_t device, std::span<const AutoencoderStep> steps, ImageRows rows);
  /// The rows of all devices, on this one; and those that are its own among all.
  ImageRows gather(std::size_t device, ImageRows rows);
  ImageRows own(std::size_t device, const ImageRows& all) const;
  /// What each device shows of one tensor, one behind the other.
  at::Tensor gather(std::size_t device, const at::Tensor& mine);

 private:
  std::optional<std::size_t> rank_of(std::size_t device) const;

  Bands bands_;
  std::vector<RowRange> shares_;
  std::vector<std::size_t> workers_;  ///< devices that have a share
  Exchange exchange_;
};

}  // namespace mgpu
