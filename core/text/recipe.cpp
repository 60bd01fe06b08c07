#include "core/text/recipe.h"

#include <array>

#include "core/text/clip_model.h"
#include "core/text/t5_model.h"

namespace mgpu {
namespace {

using enum EncoderUse::Pooled;

constexpr std::array<EncoderUse, 1> kSd1{{{.encoder = &kClipL}}};
constexpr std::array<EncoderUse, 1> kSd2{{{.encoder = &kClipH, .layer = -2}}};
constexpr std::array<EncoderUse, 2> kSdxl{{
    {.encoder = &kClipL, .layer = -2, .norm_layer = false},
    {.encoder = &kClipG, .layer = -2, .norm_layer = false, .pooled = Projected},
}};
constexpr std::array<EncoderUse, 2> kFlux{{
    {.encoder = &kClipL, .context = false, .pooled = State},
    {.encoder = &kT5xxl, .shortest = 256},
}};

}  // namespace

constexpr TextRecipe kSd1Text{.encoders = kSd1};
constexpr TextRecipe kSd2Text{.encoders = kSd2};
constexpr TextRecipe kSdxlText{.encoders = kSdxl};
constexpr TextRecipe kSdxlRefinerText{.encoders = std::span(kSdxl).last<1>()};
constexpr TextRecipe kFluxText{.encoders = kFlux, .breaks = false};

std::int64_t layer_under(const EncoderUse& use, std::int64_t clip_skip) {
  if (clip_skip == 0 || !use.encoder->has_clip_skip()) return use.layer;
  return clip_skip > 0 ? -clip_skip : clip_skip;
}

}  // namespace mgpu
