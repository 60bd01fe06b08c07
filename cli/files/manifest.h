#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace mgpu {

inline constexpr const char* kManifestName = "manifest.jsonl";

/// manifest.jsonl of an output directory: one JSON object per line and picture. Several processes may share it: each
/// change is made under a lock on the file, and a line is appended in one write.
class Manifest {
 public:
  explicit Manifest(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }

  /// Appends a line, which ends in a newline. What is left of a line that somebody was killed or ran out of disk at
  /// goes first; a line that cannot be written whole leaves nothing. Makes the folder. Throws WriteError, and Error
  /// (exit 1) where the manifest is no regular file.
  void append(std::string_view line) const;

  /// A picture that is there, and what makes its line where the manifest has none.
  struct Present {
    std::string file;  ///< as the line names it
    std::function<std::string()> line;
  };
  /// Leaves one line, the last, of each picture that is `present` and none of those that are `absent`, removes what is
  /// no JSON object, and appends the lines that are missing. Other pictures' lines stay as they are. Errors as append.
  void mend(const std::vector<Present>& present, const std::set<std::string>& absent) const;

 private:
  std::string path_;
};

}  // namespace mgpu
