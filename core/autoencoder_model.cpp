#include "core/autoencoder_model.h"

#include "core/error.h"

namespace mgpu {

const AutoencoderModel& autoencoder(const Part& part) {
  const auto* model = dynamic_cast<const AutoencoderModel*>(part.row->model);
  MGPU_CHECK(model, "{} is no autoencoder", part.row->what);
  return *model;
}

}  // namespace mgpu
