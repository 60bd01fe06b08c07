#pragma once

#include <vector>

#include "core/family.h"

namespace mgpu {

/// The autoencoders, tiny ones among them.
std::vector<FamilyRow> autoencoder_families();

}  // namespace mgpu
