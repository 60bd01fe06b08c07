#include "cli/render/existing_picture.h"

#include <filesystem>

#include "cli/files/png.h"
#include "core/error.h"
#include "core/read_file.h"

namespace mgpu {

Existing existing_picture(const std::string& path, const std::string& record, bool overwrite, bool resume) {
  std::error_code fault;
  if (overwrite || !std::filesystem::exists(path, fault)) return Existing::Render;
  if (!resume) return Existing::Keep;
  try {
    const std::map<std::string, std::string> text = read_png_text(read_file(path), path);
    const auto found = text.find("mgpu_job");
    return found != text.end() && found->second == record ? Existing::Keep : Existing::Render;
  } catch (const Error&) {  // damaged: what --resume is there to mend
    return Existing::Render;
  }
}

}  // namespace mgpu
