#pragma once

#include <set>
#include <string>
#include <string_view>

#include "core/error.h"

namespace mgpu {

/// A file that could not be written (exit 1).
class WriteError : public Error {
 public:
  /// `fault` is errno's.
  WriteError(const std::string& path, int fault);

  /// Whether other files will fail too: a full or broken disk, not a file that is too large or has too long a name.
  bool concerns_all() const { return concerns_all_; }

 private:
  bool concerns_all_;
};

/// Creates a file in a folder, writes to it and removes it; 0 or errno. It has no name any more when it is written to,
/// so that nothing stays where we are killed.
int try_to_write(const std::string& folder);

/// Writes a whole file or none: a temporary file beside it with a name of its own (PATH.PID-NUMBER.tmp), fsync, rename.
/// Makes the folder, again where it goes meanwhile. Throws WriteError naming the file and the system's reason (a full
/// disk, say), and leaves no half file and an older one untouched. Processes may write the same file at once: each
/// reader sees one of them, whole.
void write_file(const std::string& path, std::string_view bytes);

/// Removes temporary files that processes left which were killed while they wrote one of these files. A file that is
/// being written is locked, and stays.
void remove_leftovers(const std::set<std::string>& paths);

}  // namespace mgpu
