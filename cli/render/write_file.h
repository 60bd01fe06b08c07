#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/picture_list.h"

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

/// Makes the job's output directory and proves, with a file that it removes again, that pictures can be written there.
/// Throws Error (exit 2) at output.directory.
void check_output_directory(const Job& job);

/// The same without a change on the disk, as far as that can tell: the directory, or the nearest one above that exists,
/// is a directory that we may write to.
void check_output_directory_unchanged(const Job& job);

/// Writes a whole file or none: a temporary file beside it with a name of its own (PATH.PID-NUMBER.tmp), fsync, rename.
/// Makes the folder, again where it goes meanwhile. Throws WriteError naming the file and the system's reason (a full
/// disk, say), and leaves no half file and an older one untouched. Processes may write the same file at once: each
/// reader sees one of them, whole.
void write_file(const std::string& path, std::string_view bytes);

/// Removes temporary files that processes left which were killed while they wrote one of these files. A file that is
/// being written is locked, and stays.
void remove_leftovers(const std::set<std::string>& paths);

/// What to do about a picture.
enum class Existing : std::uint8_t { Render, Keep };

/// Pictures that exist are kept; `overwrite` renders all, `resume` those whose mgpu_job chunk is not `record`, or whose
/// file is damaged.
Existing existing_picture(const std::string& path, const std::string& record, bool overwrite, bool resume);

/// Whether there is a file that can be read and begins as a PNG does.
bool begins_as_png(const std::string& path);

/// Where each job's report goes ("" for none): its name in the output directory, under --part with the part. Jobs that
/// would share a file get their own names in it: report-JOB.json.
std::vector<std::string> report_paths(std::span<const Job> jobs, const std::optional<PartOfRun>& part);

}  // namespace mgpu
