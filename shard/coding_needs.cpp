#include "shard/coding_needs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "shard/need_parts.h"
#include "shard/tiny_vae_needs.h"

namespace mgpu {
namespace {

using Moment = CodingNeed::Moment;

constexpr std::uint64_t kColours = 3;

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
  void shrink(std::size_t from) { out_.push_back({strips(at(from) * channels(from), 3), image(from) * 5 / 4}); }
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

std::int64_t units_of(const VaeSizes& sizes, const LargestPicture& picture, bool on_gpu) {
  const auto side = [&](std::int64_t pixels) { return std::max<std::int64_t>(pixels / sizes.factor(), 1); };
  return Bands(side(picture.height), side(picture.width), sizes.channels.back(), band_rules(on_gpu)).units();
}

/// The levels of a decode from the smallest image down to `last`.
void decode_levels(Moments& moments, std::size_t last) {
  moments.attend();
  for (std::size_t level = moments.levels(); level-- > last;) {
    moments.block(level, moments.channels(level + 1));
    if (level > last) moments.enlarge(level);
  }
}

CodingNeed::Need whole_decode(const VaeSizes& sizes, at::ScalarType dtype, const LargestPicture& picture, bool on_gpu) {
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
CodingNeed::Need tiled_decode(const VaeSizes& sizes, at::ScalarType dtype, const LargestPicture& picture,
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
  for (Moments* one : {&part, &small})
    for (const Moment& moment : one->take()) whole.add({moment.fixed + moment.shared});
  const std::uint64_t tiles = whole.pixels() * kColours * whole.element() * 3 / 2;
  whole.add({tiles + whole.pixels() * kColours * 2 * kFp32});
  whole.finish();
  return {units_of(sizes, picture, on_gpu), whole.take()};
}

CodingNeed::Need whole_encode(const VaeSizes& sizes, at::ScalarType dtype, const LargestPicture& picture, bool on_gpu) {
  Moments moments(sizes, picture.width * picture.height, dtype, on_gpu);
  moments.finish();
  for (std::size_t level = 0; level < moments.levels(); ++level) {
    moments.block(level, moments.channels(level == 0 ? 0 : level - 1));
    if (level + 1 < moments.levels()) moments.shrink(level);
  }
  moments.attend();
  return {units_of(sizes, picture, on_gpu), moments.take()};
}

/// Tiles that may be decoded in, each with less memory than those before: the job's, and unless it names them smaller
/// ones; two levels of them, then as many as there are.
std::vector<Tiling> tilings_of(const VaeSizes& sizes, const LargestPicture& picture) {
  const auto levels = static_cast<int>(sizes.channels.size()) - 1;
  Tiling tiling = picture.tiling;
  tiling.levels = std::min(2, levels);
  std::vector<Tiling> out{tiling};
  if (!picture.tiling_is_told) {
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
  for (const auto& [name, info] : vae.file->tensors())
    if (name.starts_with(vae.prefix + "decoder.") && name.ends_with(".upsample.conv.weight"))
      out += size(info.count()) * c10::elementSize(dtype) * 7 / 9;
  return out;
}

}  // namespace

ComponentNeed decoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture) {
  if (vae.is_tiny_vae()) return tiny_decoder_need(vae, dtype, picture);
  const VaeSizes& sizes = vae.vae();
  const std::uint64_t bytes = bytes_below(vae, "decoder.", dtype) + phase_bytes(vae, dtype);
  std::vector<CodingNeed> ways;
  for (const CodingWay way : {CodingWay::Whole, CodingWay::Parallel})
    ways.push_back({.way = way,
                    .tiling = tilings_of(sizes, picture).front(),
                    .on_gpu = whole_decode(sizes, dtype, picture, true),
                    .on_cpu = whole_decode(sizes, dtype, picture, false)});
  for (const Tiling& tiling : tilings_of(sizes, picture))
    if (tiling.levels > 0)
      ways.push_back({.way = CodingWay::Tiled,
                      .tiling = tiling,
                      .on_gpu = tiled_decode(sizes, dtype, picture, tiling, true),
                      .on_cpu = tiled_decode(sizes, dtype, picture, tiling, false)});
  return {.name = "vae",
          .phase = Phase::Decode,
          .blocks = {{"level", static_cast<int>(sizes.channels.size()), bytes}},
          .bytes = bytes,
          .activation = kWorkspace,
          .whole = true,
          .activation_on_cpu = loading_bytes(vae, dtype),
          .coding = std::move(ways)};
}

ComponentNeed image_encoder_need(const Part& vae, at::ScalarType dtype, const LargestPicture& picture) {
  if (vae.is_tiny_vae()) return tiny_encoder_need(vae, dtype, picture);
  const VaeSizes& sizes = vae.vae();
  const std::uint64_t bytes = bytes_below(vae, "encoder.", dtype);
  CodingNeed way{.way = CodingWay::Whole,
                 .on_gpu = whole_encode(sizes, dtype, picture, true),
                 .on_cpu = whole_encode(sizes, dtype, picture, false)};
  CodingNeed parallel = way;
  parallel.way = CodingWay::Parallel;
  return {.name = "vae",
          .phase = Phase::Encode,
          .blocks = {{"encoder level", static_cast<int>(sizes.channels.size()), bytes}},
          .bytes = bytes,
          .activation = kWorkspace,
          .whole = true,
          .activation_on_cpu = loading_bytes(vae, dtype),
          .coding = {std::move(way), std::move(parallel)}};
}

}  // namespace mgpu
