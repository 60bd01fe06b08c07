#include "cli/render/preview_file.h"

#include <filesystem>

#include "cli/files/png.h"
#include "cli/files/write_file.h"
#include "core/quietly.h"

namespace mgpu {

PreviewFile::~PreviewFile() {
  quietly([this] { std::filesystem::remove(path_); });  // one that cannot be removed stays
}

void PreviewFile::write(const Rgb8& pixels) const {
  write_file(path_, encode_png(pixels, {}));
}

}  // namespace mgpu
