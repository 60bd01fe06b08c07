#pragma once

#include <string>

#include "cli/files/pixels.h"
#include "cli/job/picture_list.h"

namespace mgpu {

/// A small picture of one that is on its way, beside it. The file goes when this goes.
class PreviewFile {
 public:
  /// `picture`: the path of that picture.
  explicit PreviewFile(const std::string& picture) : path_(preview_path(picture)) {}
  ~PreviewFile();
  PreviewFile(const PreviewFile&) = delete;
  PreviewFile& operator=(const PreviewFile&) = delete;

  /// Puts it in the place of the one before: whole, or not at all. Errors as write_file.
  void write(const Rgb8& pixels) const;

 private:
  std::string path_;
};

}  // namespace mgpu
