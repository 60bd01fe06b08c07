#include "vae/slabs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/hand_over.h"
#include "core/slab_layout.h"
#include "vae/band_work.h"
#include "vae/recorded_statistics.h"

namespace mgpu {
namespace {

using Steps = std::span<const AutoencoderStep>;

/// Thrown by a slab that has come to a normalisation whose statistics are not known yet.
struct MissingStatistics {
  at::Tensor sums;  ///< of the slab's rows
  std::int64_t width = 0;
  const Norm* norm = nullptr;
};

/// The image's, as far as they are known.
class KnownStatistics final : public Statistics {
 public:
  explicit KnownStatistics(const NormTape& known) : known_(known) {}
  at::Tensor affine(const at::Tensor& sums, std::int64_t width, const Norm& norm) override {
    if (next_ == known_.size()) throw MissingStatistics{sums, width, &norm};
    return known_[next_++];
  }

 private:
  const NormTape& known_;
  std::size_t next_ = 0;
};

/// Steps of one level, or of several that slabs go through together.
struct Levels {
  Steps steps;
  std::int64_t reach = 0;        ///< in rows of their largest image
  std::int64_t enlargement = 1;  ///< of that over what comes in
};

/// Levels on their way through the slabs of one device.
class InSlabs {
 public:
  /// `image`: all rows of what comes in.
  InSlabs(BandWork& work, std::size_t device, const Levels& levels, const ImageRows& image)
      : work_(work), device_(device), levels_(levels), image_(image) {}

  /// All rows of what comes out.
  ImageRows run() {
    while (!go_through()) {
      const at::Tensor sums = work_.gather(device_, at::cat(sums_));
      known_.push_back(measured_affine(sums, missing_->width, *missing_->norm));
      sums_.clear();
      missing_.reset();
    }
    return work_.gather(device_, std::move(out_));
  }

 private:
  /// Whether the slabs came to the end, which is then out_: this device's rows.
  bool go_through() {
    for (const RowRange& slab : Slabs::cut(work_.units(device_))) {
      const RowRange around = with_margin(slab);
      KnownStatistics statistics(known_);
      JointWork alone;
      Exchange nobody(1, alone);
      try {
        const BandOps ops(work_.bands(), around, statistics, nobody, 0);
        keep(run_steps(levels_.steps, rows_of(image_, around), ops), slab, around);
      } catch (const MissingStatistics& missing) {
        sums_.push_back(inner(missing.sums, missing.width, slab, around).clone());
        missing_ = missing;
        missing_->sums.reset();
      }
    }
    return !missing_;
  }

  RowRange with_margin(const RowRange& slab) const {
    const Bands& bands = work_.bands();
    const std::int64_t rows_of_unit = bands.rows({0, 1}, image_.width() * levels_.enlargement).size();
    const std::int64_t margin = Slabs::margin(levels_.reach, rows_of_unit);
    return {std::max<std::int64_t>(0, slab.first - margin), std::min(bands.units(), slab.last + margin)};
  }

  /// A copy: steps may write to it.
  ImageRows rows_of(const ImageRows& image, const RowRange& units) const {
    const RowRange rows = work_.bands().rows(units, image.width());
    const auto copy = [&](const at::Tensor& all) {
      return all.defined() ? all.narrow(0, rows.first, rows.size()).clone() : all;
    };
    return {copy(image.values), copy(image.sums)};
  }

  /// A slab's own of its rows and those around them.
  at::Tensor inner(const at::Tensor& rows, std::int64_t width, const RowRange& slab, const RowRange& around) const {
    const RowRange own = work_.bands().rows(slab, width);
    return rows.narrow(0, own.first - work_.bands().rows(around, width).first, own.size());
  }

  void keep(const ImageRows& rows, const RowRange& slab, const RowRange& around) {
    const std::int64_t width = rows.width();
    const RowRange mine = work_.bands().rows(work_.units(device_), width), own = work_.bands().rows(slab, width);
    const auto put = [&](at::Tensor& into, const at::Tensor& from) {
      if (!from.defined()) return;
      if (!into.defined()) {
        std::vector<std::int64_t> shape = from.sizes().vec();
        shape.front() = mine.size();
        into = at::empty(shape, from.options());
      }
      into.narrow(0, own.first - mine.first, own.size()).copy_(inner(from, width, slab, around));
    };
    put(out_.values, rows.values);
    put(out_.sums, rows.sums);
  }

  BandWork& work_;
  std::size_t device_;
  Levels levels_;
  const ImageRows& image_;
  NormTape known_;
  std::vector<at::Tensor> sums_;  // of the next normalisation
  std::optional<MissingStatistics> missing_;
  ImageRows out_;
};

/// Runs levels on an image that every device has.
ImageRows run_levels(BandWork& work, std::size_t device, const std::vector<Levels>& levels, ImageRows image) {
  for (const Levels& some : levels) image = InSlabs(work, device, some, image).run();
  return image;
}

/// A coder's levels as slabs go through them, each given by its steps, which lie one behind the other.
std::vector<Levels> grouped(const std::vector<Steps>& levels, const Slabs& slabs, int residual_blocks, bool enlarge) {
  std::vector<Levels> out;
  if (slabs.together) {
    const Steps all(levels.front().data(), levels.back().data() + levels.back().size());
    return {{all, slab_reach(slabs.levels, residual_blocks), enlarge ? std::int64_t{1} << slabs.levels : 1}};
  }
  for (const Steps& level : levels) out.push_back({level, slab_reach(1, residual_blocks), enlarge ? 2 : 1});
  return out;
}

/// What a device has come to, on the first.
at::Tensor on_front(const at::Tensor& image, std::size_t device, at::Device front) {
  return device == 0 ? image : hand_over(image, front);
}

}  // namespace

at::Tensor decode_in_slabs(std::span<const Decoder> decoders, const Team& team, const at::Tensor& z, const Slabs& slabs,
                           const std::optional<BandRules>& rules) {
  const at::Device front = decoders.front().device();
  JointWork together;
  BandWork work(bands_of(decoders.front(), z, rules), team, together);
  at::Tensor picture;
  const auto part = [&](std::size_t i) {
    const Decoder& decoder = decoders[i];
    const Steps before = Steps(decoder.steps()).first(decoder.first_step_of_last(slabs.levels));
    ImageRows rows = work.run(i, before, work.rows(i, z, decoder.device(), decoder.dtype()));
    const auto levels = grouped(decoder.last_levels(slabs.levels), slabs, decoder.sizes().residual_blocks + 1, true);
    rows = run_levels(work, i, levels, work.gather(i, std::move(rows)));
    if (work.is_first(i)) picture = on_front(image_of(rows), i, front);
  };
  team.run(together, decoders.size(), [&](std::size_t i) {
    if (work.units(i).size() > 0) part(i);
  });
  return picture;
}

LatentDistribution encode_in_slabs(std::span<const Encoder> encoders, const Team& team, const at::Tensor& image,
                                   const Slabs& slabs, const std::optional<BandRules>& rules) {
  const at::Device front = encoders.front().device();
  JointWork together;
  BandWork work(bands_of(encoders.front(), image, rules), team, together);
  at::Tensor moments;
  const auto part = [&](std::size_t i) {
    const Encoder& encoder = encoders[i];
    const auto levels = grouped(encoder.first_levels(slabs.levels), slabs, encoder.sizes().residual_blocks, false);
    const ImageRows small =
        run_levels(work, i, levels, rows_of(image, {0, image.size(2)}, encoder.device(), encoder.dtype()));
    const Steps behind = Steps(encoder.steps()).subspan(encoder.first_step_behind(slabs.levels));
    const ImageRows rows = work.gather(i, work.run(i, behind, work.own(i, small)));
    if (work.is_first(i)) moments = on_front(image_of(rows), i, front);
  };
  team.run(together, encoders.size(), [&](std::size_t i) {
    if (work.units(i).size() > 0) part(i);
  });
  return distribution_of(moments);
}

}  // namespace mgpu
