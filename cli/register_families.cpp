#include "cli/register_families.h"

#include "core/family_tables.h"
#include "vae/families.h"

namespace mgpu {

void register_families() {
  static const AddedFamilies all(joined({other_files(), flux_families(), other_families(), unet_families(),
                                         text_encoder_families(), autoencoder_families()}));
}

}  // namespace mgpu
