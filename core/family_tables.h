#pragma once

#include <initializer_list>
#include <vector>

#include "core/family.h"

namespace mgpu {

// The tables of everything that a weight file can be, but for the autoencoders (vae/families.h). The first row that
// fits decides, so the order counts.

/// Adapters, upscalers and quantisations of other programs: named when they are met, not used.
std::vector<FamilyRow> other_files();
std::vector<FamilyRow> flux_families();
/// Stable Diffusion 1.x, 2.x and XL.
std::vector<FamilyRow> unet_families();
/// Diffusion models that are not supported.
std::vector<FamilyRow> other_families();
std::vector<FamilyRow> text_encoder_families();

/// The rows of several tables, one after another.
std::vector<FamilyRow> joined(std::initializer_list<std::vector<FamilyRow>> tables);

}  // namespace mgpu
