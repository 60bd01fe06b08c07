// The fits that ComfyUI uses (comfy/latent_formats.py, latent_rgb_factors and latent_rgb_factors_bias).

#include "core/latent_rgb.h"

namespace mgpu {
namespace {

using Factors = std::array<float, 3>;

constexpr std::array<Factors, 4> kStableDiffusion{{
    {0.3512F, 0.2297F, 0.3227F},
    {0.3250F, 0.4974F, 0.2350F},
    {-0.2829F, 0.1762F, 0.2721F},
    {-0.2120F, -0.2616F, -0.7177F},
}};

constexpr std::array<Factors, 4> kSdxl{{
    {0.3651F, 0.4232F, 0.4341F},
    {-0.2533F, -0.0042F, 0.1068F},
    {0.1076F, 0.1111F, -0.0362F},
    {-0.3165F, -0.2492F, -0.2188F},
}};

constexpr std::array<Factors, 16> kFlux{{
    {-0.0346F, 0.0244F, 0.0681F},
    {0.0034F, 0.0210F, 0.0687F},
    {0.0275F, -0.0668F, -0.0433F},
    {-0.0174F, 0.0160F, 0.0617F},
    {0.0859F, 0.0721F, 0.0329F},
    {0.0004F, 0.0383F, 0.0115F},
    {0.0405F, 0.0861F, 0.0915F},
    {-0.0236F, -0.0185F, -0.0259F},
    {-0.0245F, 0.0250F, 0.1180F},
    {0.1008F, 0.0755F, -0.0421F},
    {-0.0515F, 0.0201F, 0.0011F},
    {0.0428F, -0.0012F, -0.0036F},
    {0.0817F, 0.0765F, 0.0749F},
    {-0.1264F, -0.0522F, -0.1103F},
    {-0.0280F, -0.0881F, -0.0499F},
    {-0.1262F, -0.0982F, -0.0778F},
}};

}  // namespace

constinit const LatentRgb kStableDiffusionRgb{kStableDiffusion};
constinit const LatentRgb kSdxlRgb{kSdxl, {0.1084F, -0.0175F, -0.0011F}};
constinit const LatentRgb kFluxRgb{kFlux, {-0.0329F, -0.0718F, -0.0851F}};

}  // namespace mgpu
