#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace mgpu {

/// Rows (or units of rows) first .. last - 1.
struct RowRange {
  std::int64_t first = 0;
  std::int64_t last = 0;

  std::int64_t size() const { return last - first; }
  bool operator==(const RowRange&) const = default;
};

/// a / b, rounded up.
inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// How much is computed at once. They fix shapes, thereby kernels, thereby bits: constants, but for tests.
struct BandRules {
  std::int64_t unit_values = std::int64_t{1} << 22;   ///< of a unit, at the latent's size with the widest channels
  std::int64_t strip_values = std::int64_t{1} << 25;  ///< of a strip's input or output: some tens of MiB, near a cache
  std::int64_t score_values = std::int64_t{1} << 27;  ///< of attention, for one piece of the queries
  std::int64_t least_queries = 512;                   ///< in such a piece: fewer are slow to multiply
};

/// Those of a kind of device. A CPU has small caches and no launches to pay for.
BandRules band_rules(bool on_gpu);

/// An image's rows as an autoencoder computes them. The image is cut into units, rows that always stay on one device;
/// a unit, at each size that the image takes on its way, is cut into strips. Both depend on the image's size alone:
/// the same strips are computed, by the same kernels, on one device or on many, so that the result has the same bits.
class Bands {
 public:
  /// Of an image whose latent is `rows` x `width` and whose coder has so many channels there.
  Bands(std::int64_t rows, std::int64_t width, std::int64_t channels, const BandRules& rules = {});

  std::int64_t units() const { return ceil_div(rows_, unit_); }
  RowRange all() const { return {0, units()}; }
  std::int64_t latent_width() const { return width_; }

  /// Rows of these units where the image is `width` wide.
  RowRange rows(const RowRange& units, std::int64_t width) const;
  /// Strips of these units where the image is `width` wide and a pixel has so many values.
  std::vector<RowRange> strips(const RowRange& units, std::int64_t width, std::int64_t channels) const;
  /// Pieces of the latent's pixels in these units whose queries are attended to together, numbered from the image's
  /// first pixel.
  std::vector<RowRange> query_pieces(const RowRange& units) const;

 private:
  std::int64_t scale(std::int64_t width) const;

  std::int64_t rows_, width_, unit_;
  BandRules rules_;
};

/// The units dealt to devices in proportion to their speeds, in order; a device may get none.
std::vector<RowRange> deal_units(std::int64_t units, std::span<const double> speeds);

}  // namespace mgpu
