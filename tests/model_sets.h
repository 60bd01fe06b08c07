#pragma once

#include <string>

#include "core/model_set.h"
#include "tests/tensor_writer.h"

namespace mgpu::test {

/// A tiny Flux from the goldens: "dev" or "schnell".
ModelSet flux_set(const std::string& kind = "dev");
/// The same from a checkpoint of ours.
ModelSet flux_set_of(const std::string& checkpoint);
/// Flux.1 dev's with so many double and single blocks.
ModelSet deeper_flux_set(const Folder& folder, int doubles, int singles);

/// Writes a small autoencoder of Stable Diffusion's 4 channels and factor 8, its values drawn. Returns its path.
std::string sd_vae(const Folder& folder);

/// A tiny SD 1.x, its UNet drawn.
ModelSet unet_set(const Folder& folder);

}  // namespace mgpu::test
