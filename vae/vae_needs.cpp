#include "vae/vae_needs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/need_parts.h"
#include "core/slab_layout.h"

namespace mgpu {
namespace {

// Of the time that one device takes for the whole picture (measured on an H200 at 2048x2048 and 4096x4096).
constexpr double kSlownessOfSlabs = 5.0, kSlownessOfJoinedSlabs = 7.0, kSlownessOfTiles = 1.2;

// A decode's images are wide and its channels few: its multiplications take longer than a diffusion model's (1.5 times
// Flux's, measured on an H200 at 1024x1024 and 2048x2048).
constexpr double kSlownessOfDecoding = 1.5;

using Moment = DecodeNeed::Moment;

constexpr std::uint64_t kColours = 3;
constexpr std::uint64_t kSmallTensors = 1 << 10;  // that outlive a decode for a moment

std::uint64_t size(std::int64_t value) {
  return static_cast<std::uint64_t>(value);
}

/// Counts the moments of a coder's way through its levels: where an operation's input and output lie beside each other,
/// with the strips (vae/band_ops.h) that it works in.
class Moments {
 public:
  Moments(const VaeSizes& sizes, std::int64_t pixels, at::ScalarType dtype, bool on_gpu)
      : sizes_(sizes), pixels_(size(pixels)), width_(c10::elementSize(dtype)), on_gpu_(on_gpu) {}

  std::vector<Moment> take() { return std::move(out_); }
  std::size_t levels() const { return sizes_.channels.size(); }
  std::uint64_t element() const { return width_; }
  std::uint64_t pixels() const { return pixels_; }
  std::uint64_t channels(std::size_t level) const { return size(sizes_.channels[std::min(level, levels() - 1)]); }
  /// Values of the image at a level.
  std::uint64_t image(std::size_t level) const { return at(level) * channels(level) * width_; }

  /// Bytes of so many channels at a level's size.
  std::uint64_t image(std::size_t level, std::uint64_t of_channels) const { return at(level) * of_channels * width_; }

  /// A level's first residual block, from so many channels: the image before and behind its first convolution.
  void block(std::size_t level, std::uint64_t from, std::uint64_t beside = 0) {
    const std::uint64_t both = at(level) * (from + channels(level)) * width_;
    out_.push_back({beside + strips(at(level) * std::max(from, channels(level)), 3), both});
  }
  /// Between two levels, of which the second is the larger.
  void enlarge(std::size_t from, std::uint64_t beside = 0) {
    const std::uint64_t values = 4 * at(from) * channels(from);
    out_.push_back({beside + strips(values, 1) * 5 / 4, image(from) + values * width_});
  }
  void shrink(std::size_t from, std::uint64_t beside = 0) {
    out_.push_back({beside + strips(at(from) * channels(from), 3), image(from) * 5 / 4});
  }
  /// The image and what is attended to lie with who has them; keys and values everywhere, and the others' on their way.
  void attend() {
    const std::size_t level = levels() - 1;
    const std::uint64_t tokens = std::max<std::uint64_t>(at(level), 1), all = image(level);
    const BandRules rules = band_rules(on_gpu_);
    const std::uint64_t queries =
        std::min(tokens, std::max(size(rules.score_values) / tokens, size(rules.least_queries)));
    const std::uint64_t scores =
        on_gpu_ ? queries * tokens * (kFp32 + width_) : attention_scratch(size(sizes_.channels.back()));
    out_.push_back({2 * all + scores + 4 * queries * channels(level) * width_, 2 * all, 2 * all});
  }
  /// The finished picture, in the coder's type and in fp32, as it is brought to 0..1.
  void finish() { out_.push_back({pixels_ * kColours * (width_ + 3 * kFp32)}); }

  void add(const Moment& moment) { out_.push_back(moment); }
  /// Those of a part of the picture that is coded by itself, on every device.
  void add_part(Moments& part) {
    for (const Moment& moment : part.take()) out_.push_back({moment.fixed + moment.shared});
  }

  /// `count` strips of an image of so many values.
  std::uint64_t strips(std::uint64_t values, std::uint64_t count) const {
    return count * std::min(size(band_rules(on_gpu_).strip_values), values) * width_;
  }

 private:
  std::uint64_t at(std::size_t level) const { return pixels_ >> (2 * level); }

  const VaeSizes& sizes_;
  std::uint64_t pixels_, width_;
  bool on_gpu_;
  std::vector<Moment> out_;
};

Bands bands_of(const VaeSizes& sizes, const LargestPicture& picture, bool on_gpu) {
  const auto side = [&](std::int64_t pixels) { return std::max<std::int64_t>(pixels / sizes.factor(), 1); };
  return {side(picture.height), side(picture.width), sizes.channels.back(), band_rules(on_gpu)};
}

std::int64_t units_of(const VaeSizes& sizes, const LargestPicture& picture, bool on_gpu) {
  return bands_of(sizes, picture, on_gpu).units();
}

/// Pixels of a slab with what lies around it, of levels whose largest image is this one's.
std::int64_t slab_pixels(const Bands& bands, std::size_t level, std::int64_t reach, const LargestPicture& picture) {
  const std::int64_t latent = bands.latent_width(), width = std::max<std::int64_t>(picture.width >> level, latent);
  const std::int64_t rows = bands.rows({0, 1}, width / latent * latent).size();
  const std::int64_t units = std::min(bands.units(), Slabs::kUnits + 2 * Slabs::margin(reach, rows));
  return bands.rows({0, units}, latent).size() * picture.width * picture.width / latent;
}

/// The levels of a decode from the smallest image down to `last`.
void decode_levels(Moments& moments, std::size_t last) {
  moments.attend();
  for (std::size_t level = moments.levels(); level-- > last;) {
    moments.block(level, moments.channels(level + 1));
    if (level > last) moments.enlarge(level);
  }
}

DecodeNeed::Need whole_decode(const VaeSizes& sizes, at::ScalarType dtype, const LargestPicture& picture, bool on_gpu) {
  Moments moments(sizes, picture.width * picture.height, dtype, on_gpu);
  decode_levels(moments, 0);
  moments.finish();
  return {units_of(sizes, picture, on_gpu), moments.take()};
}

/// Pixels of a tile.
std::int64_t tile_pixels(const VaeSizes& sizes, const LargestPicture& picture, const Tiling& tiling) {
  const auto side = [&](std::int64_t of_picture) {
    const std::int64_t shared = shared_pixels(tiling, sizes.residual_blocks + 1);
    return cut_into_tiles(of_picture, tiling.tile, shared).front().size();
  };
  return side(picture.width) * side(picture.height);
}

/// A picture no larger than a tile, whole; the levels before the tiled ones; beside their image, which every device
/// has, a tile on its way through the others; then all tiles and the picture that they become.
DecodeNeed::Need tiled_decode(const VaeSizes& sizes, at::ScalarType dtype, const LargestPicture& picture,
                              const Tiling& tiling, bool on_gpu) {
  const auto first = static_cast<std::size_t>(tiling.levels);  // the last level before them
  Moments whole(sizes, picture.width * picture.height, dtype, on_gpu);
  decode_levels(whole, first);
  const std::uint64_t image = whole.image(first), values = image / whole.element();
  whole.add({image, 0, 2 * image});
  const auto tile = static_cast<std::uint64_t>(tile_pixels(sizes, picture, tiling));
  const std::uint64_t crop = values * tile / whole.pixels() * whole.element();
  Moments part(sizes, static_cast<std::int64_t>(tile), dtype, on_gpu);
  for (std::size_t level = first; level-- > 0;) {
    part.enlarge(level + 1, image + crop);
    part.block(level, part.channels(level + 1), image);
  }
  const std::int64_t side = tiling.tile;
  Moments small(sizes, std::min(side * side, picture.width * picture.height), dtype, on_gpu);
  decode_levels(small, 0);
  for (Moments* one : {&part, &small}) whole.add_part(*one);
  const std::uint64_t tiles = whole.pixels() * kColours * whole.element() * 3 / 2;
  whole.add({tiles + whole.pixels() * kColours * 2 * kFp32});
  whole.finish();
  return {units_of(sizes, picture, on_gpu), whole.take()};
}

DecodeNeed::Need whole_encode(const VaeSizes& sizes, at::ScalarType dtype, const LargestPicture& picture, bool on_gpu) {
  Moments moments(sizes, picture.width * picture.height, dtype, on_gpu);
  moments.finish();
  for (std::size_t level = 0; level < moments.levels(); ++level) {
    moments.block(level, moments.channels(level == 0 ? 0 : level - 1));
    if (level + 1 < moments.levels()) moments.shrink(level);
  }
  moments.attend();
  return {units_of(sizes, picture, on_gpu), moments.take()};
}

/// Levels that slabs go through by themselves: the first of the decoder's, of the encoder's the last, is the smallest.
struct SlabLevels {
  std::size_t smallest = 0, largest = 0;
};

std::vector<SlabLevels> groups_of(const Slabs& slabs) {
  if (slabs.together) return {{size(slabs.levels) - 1, 0}};
  std::vector<SlabLevels> out;
  for (std::size_t level = size(slabs.levels); level-- > 0;) out.push_back({level, level});
  return out;
}

/// The levels before whole; then, beside what comes into others and out of them, which every device has, a slab.
DecodeNeed::Need decode_in_slabs(const VaeSizes& sizes, at::ScalarType dtype, const LargestPicture& picture,
                                 const Slabs& slabs, bool on_gpu) {
  Moments whole(sizes, picture.width * picture.height, dtype, on_gpu);
  decode_levels(whole, size(slabs.levels));
  const Bands bands = bands_of(sizes, picture, on_gpu);
  for (const SlabLevels& levels : groups_of(slabs)) {
    const std::uint64_t in = whole.image(levels.smallest + 1),
                        out = levels.largest > 0 ? whole.image(levels.largest) : whole.image(0, kColours);
    whole.add({in, in, 2 * in});  // as it comes together
    whole.add({out, out, 2 * out});
    const std::int64_t reach =
        slab_reach(static_cast<int>(levels.smallest - levels.largest) + 1, sizes.residual_blocks + 1);
    Moments slab(sizes, slab_pixels(bands, levels.largest, reach, picture), dtype, on_gpu);
    for (std::size_t level = levels.smallest + 1; level-- > levels.largest;) {
      slab.enlarge(level + 1, in + out);
      slab.block(level, slab.channels(level + 1), in + out);
    }
    whole.add_part(slab);
  }
  whole.finish();
  return {bands.units(), whole.take()};
}

/// Likewise, the other way round.
DecodeNeed::Need encode_in_slabs(const VaeSizes& sizes, at::ScalarType dtype, const LargestPicture& picture,
                                 const Slabs& slabs, bool on_gpu) {
  Moments whole(sizes, picture.width * picture.height, dtype, on_gpu);
  whole.finish();
  const Bands bands = bands_of(sizes, picture, on_gpu);
  const auto before = [&](std::size_t level) { return whole.channels(level == 0 ? 0 : level - 1); };
  const auto into = [&](const Moments& some, std::size_t level) {
    return some.image(level, level == 0 ? kColours : before(level));
  };
  // A CPU's picture lies there, as it was read and brought to -1..1.
  const std::uint64_t pictures = on_gpu ? 0 : 2 * whole.pixels() * kColours * kFp32;
  for (const SlabLevels& levels : groups_of(slabs)) {
    const std::uint64_t in = into(whole, levels.largest),
                        out = whole.image(levels.smallest + 1, whole.channels(levels.smallest));
    whole.add({pictures + in + out, out, 2 * out});
    const std::int64_t reach =
        slab_reach(static_cast<int>(levels.smallest - levels.largest) + 1, sizes.residual_blocks);
    Moments slab(sizes, slab_pixels(bands, levels.largest, reach, picture), dtype, on_gpu);
    const std::uint64_t beside = pictures + in + out + into(slab, levels.largest);
    for (std::size_t level = levels.largest; level <= levels.smallest; ++level) {
      slab.block(level, before(level), beside);
      slab.shrink(level, beside);
    }
    whole.add_part(slab);
  }
  for (std::size_t level = size(slabs.levels); level < whole.levels(); ++level) {
    whole.block(level, before(level), pictures);
    if (level + 1 < whole.levels()) whole.shrink(level, pictures);
  }
  whole.attend();
  return {bands.units(), whole.take()};
}

/// Slabs that may be coded in, each with less memory than those before. None where a slab is all of the picture.
std::vector<Slabs> slabs_of(const VaeSizes& sizes, const LargestPicture& picture) {
  const int levels = std::min(Slabs{}.levels, static_cast<int>(sizes.channels.size()) - 1);
  // A CPU's units are the smaller ones.
  if (levels == 0 || units_of(sizes, picture, /*on_gpu=*/false) <= Slabs::kUnits) return {};
  return {{.levels = levels, .together = false}, {.levels = levels, .together = true}};
}

/// Tiles that may be decoded in, each with less memory than those before: the job's, and unless it names them smaller
/// ones; two levels of them, then as many as there are.
std::vector<Tiling> tilings_of(const VaeSizes& sizes, const LargestPicture& picture) {
  const auto levels = static_cast<int>(sizes.channels.size()) - 1;
  Tiling tiling = picture.tiling;
  tiling.levels = std::min(2, levels);
  std::vector<Tiling> out{tiling};
  if (!picture.tiling_is_fixed) {
    tiling.tile /= 2;
    tiling.overlap = std::min(tiling.overlap, tiling.tile / 4);
    out.push_back(tiling);
  }
  while (++tiling.levels <= levels) out.push_back(tiling);
  return out;
}

/// What loading adds to a decoder's or encoder's weights: an enlargement's four phases are 16 weights for 9.
std::uint64_t phase_bytes(const Part& vae, at::ScalarType dtype) {
  std::uint64_t out = 0;
  for (const auto& [name, info] : vae.tensors())
    if (name.starts_with(vae.prefix + "decoder.") && name.ends_with(".upsample.conv.weight"))
      out += size(info.count()) * c10::elementSize(dtype) * 7 / 9;
  return out;
}

}  // namespace

ComponentNeed vae_decoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture) {
  const auto& sizes = vae.as<VaeSizes>();
  const std::uint64_t bytes = bytes_below(vae, "decoder.", dtype) + phase_bytes(vae, dtype);
  std::vector<DecodeNeed> modes;
  for (const DecodeMode mode : {DecodeMode::Whole, DecodeMode::Parallel})
    modes.push_back({.mode = mode,
                     .tiling = tilings_of(sizes, picture).front(),
                     .on_gpu = whole_decode(sizes, dtype, picture, true),
                     .on_cpu = whole_decode(sizes, dtype, picture, false)});
  for (const Slabs& slabs : slabs_of(sizes, picture))
    modes.push_back({.mode = DecodeMode::Slabs,
                     .slabs = slabs,
                     .slowness = slabs.together ? kSlownessOfJoinedSlabs : kSlownessOfSlabs,
                     .on_gpu = decode_in_slabs(sizes, dtype, picture, slabs, true),
                     .on_cpu = decode_in_slabs(sizes, dtype, picture, slabs, false)});
  for (const Tiling& tiling : tilings_of(sizes, picture))
    if (tiling.levels > 0)
      modes.push_back({.mode = DecodeMode::Tiled,
                       .tiling = tiling,
                       .slowness = kSlownessOfTiles,
                       .on_gpu = tiled_decode(sizes, dtype, picture, tiling, true),
                       .on_cpu = tiled_decode(sizes, dtype, picture, tiling, false)});
  return {.name = "vae",
          .phase = Phase::Decode,
          .blocks = {{"level", static_cast<int>(sizes.channels.size()), bytes}},
          .bytes = bytes,
          .activation = 2 * kWorkspace,  // its thread's, beside that of the diffusion model's
          .indivisible = true,
          .latent_device_bytes = kSmallTensors,
          .activation_on_cpu = loading_bytes(vae, dtype),
          .modes = std::move(modes)};
}

ComponentNeed vae_encoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture) {
  const auto& sizes = vae.as<VaeSizes>();
  const std::uint64_t bytes = bytes_below(vae, "encoder.", dtype);
  std::vector<DecodeNeed> modes;
  for (const DecodeMode mode : {DecodeMode::Whole, DecodeMode::Parallel})
    modes.push_back({.mode = mode,
                     .on_gpu = whole_encode(sizes, dtype, picture, true),
                     .on_cpu = whole_encode(sizes, dtype, picture, false)});
  for (const Slabs& slabs : slabs_of(sizes, picture))
    modes.push_back({.mode = DecodeMode::Slabs,
                     .slabs = slabs,
                     .on_gpu = encode_in_slabs(sizes, dtype, picture, slabs, true),
                     .on_cpu = encode_in_slabs(sizes, dtype, picture, slabs, false)});
  return {.name = "vae",
          .phase = Phase::Encode,
          .blocks = {{"encoder level", static_cast<int>(sizes.channels.size()), bytes}},
          .bytes = bytes,
          .activation = kWorkspace,
          .indivisible = true,
          .activation_on_cpu = loading_bytes(vae, dtype),
          .modes = std::move(modes)};
}

double vae_decode_time(const VaeSizes& sizes, const LargestPicture& picture) {
  const auto pixels = static_cast<double>(picture.width * picture.height);
  const auto factor = static_cast<double>(sizes.factor());
  double positions = pixels / (factor * factor), channels = sizes.channels.back();
  double out = attention_work(positions, channels) + 2 * residual_work(positions, channels, channels);
  for (std::size_t level = sizes.channels.size(); level-- > 0;) {
    for (int block = 0; block <= sizes.residual_blocks; ++block) {
      out += residual_work(positions, channels, sizes.channels[level]);
      channels = sizes.channels[level];
    }
    if (level > 0) positions *= 4, out += 4 * positions * channels * channels;  // four 2x2 convolutions (phase_weights)
  }
  return kSlownessOfDecoding * out;
}

}  // namespace mgpu
