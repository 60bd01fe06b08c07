#pragma once

#include <span>
#include <string>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/picture_list.h"

namespace mgpu {

/// Makes the job's output directory and proves, with a file that it removes again, that pictures can be written there.
/// Throws Error (exit 2) at output.directory.
void check_output_directory(const Job& job);

/// The same without a change on the disk, as far as that can tell: the directory, or the nearest one above that exists,
/// is a directory that we may write to.
void check_output_directory_unchanged(const Job& job);

/// What a run would write.
struct Outputs {
  std::span<const Job> jobs;
  std::span<const Picture> pictures;
  std::span<const std::string> reports;  ///< report_paths(): one per job, "" for none
  bool previews = false;
  std::string log = {};  ///< "" for none
};

/// Throws Error (exit 2) at the key, or at --log, where a file that would be written
/// - has a name with a control character, or one that is too long, its preview's included;
/// - would lie outside its output directory;
/// - would take the place of another such file, of a job file or of a file that a job reads, under whatever name;
/// - is there already and is no regular file, or should lie in a folder that is a file.
/// Looks at the disk and changes nothing there.
void check_outputs(const Outputs& outputs);

/// Of pictures that are there and would be kept: those that are no PNGs, each as a note.
std::vector<std::string> no_png_notes(std::span<const Picture> pictures);

/// "out/a.png is kept, though it is no PNG: ..."
std::string no_png_note(const std::string& path);

}  // namespace mgpu
