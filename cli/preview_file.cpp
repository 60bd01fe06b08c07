#include "cli/preview_file.h"

#include <filesystem>
#include <system_error>

#include "cli/output.h"

namespace mgpu {

PreviewFile::~PreviewFile() {
  std::error_code fault;  // one that cannot be removed stays
  std::filesystem::remove(path_, fault);
}

void PreviewFile::write(const Rgb8& pixels) const {
  write_file(path_, encode_png(pixels, {}));
}

}  // namespace mgpu
