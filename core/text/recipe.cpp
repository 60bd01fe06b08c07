#include "core/text/recipe.h"

#include <array>

#include "core/error.h"

namespace mgpu {
namespace {

using enum EncoderUse::Pooled;

constexpr std::array<EncoderUse, 1> kSd1{{{.encoder = TextEncoder::ClipL}}};
constexpr std::array<EncoderUse, 1> kSd2{{{.encoder = TextEncoder::ClipH, .layer = -2}}};
constexpr std::array<EncoderUse, 2> kSdxl{{
    {.encoder = TextEncoder::ClipL, .layer = -2, .norm_layer = false},
    {.encoder = TextEncoder::ClipG, .layer = -2, .norm_layer = false, .pooled = Projected},
}};
constexpr std::array<EncoderUse, 2> kFlux{{
    {.encoder = TextEncoder::ClipL, .context = false, .pooled = State},
    {.encoder = TextEncoder::T5xxl, .shortest = 256},
}};

}  // namespace

constexpr TextRecipe kSd1Text{.encoders = kSd1};
constexpr TextRecipe kSd2Text{.encoders = kSd2};
constexpr TextRecipe kSdxlText{.encoders = kSdxl};
constexpr TextRecipe kSdxlRefinerText{.encoders = std::span(kSdxl).last<1>()};
constexpr TextRecipe kFluxText{.encoders = kFlux, .breaks = false};

std::string_view encoder_name(TextEncoder encoder) {
  constexpr std::array<std::string_view, 4> kNames = {"clip_l", "clip_h", "clip_g", "t5xxl"};
  return kNames.at(static_cast<std::size_t>(encoder));
}

int clip_depth(int layers, std::int64_t width) {
  struct Architecture {
    std::int64_t width;
    int depth;
  };
  constexpr std::array<Architecture, 3> kKnown{{{768, 12}, {1024, 24}, {1280, 32}}};
  for (const Architecture& known : kKnown)
    if (known.width == width) return known.depth;
  for (const Architecture& known : kKnown)
    if (known.depth - 1 == layers) return known.depth;
  return layers;
}

std::int64_t layer_under(const EncoderUse& use, std::int64_t clip_skip) {
  if (clip_skip == 0 || use.encoder == TextEncoder::T5xxl) return use.layer;
  return clip_skip > 0 ? -clip_skip : clip_skip;
}

}  // namespace mgpu
