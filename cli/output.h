#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/job.h"
#include "cli/pictures.h"

namespace mgpu {

/// Makes the job's output directory and proves, with a file that it removes again, that pictures can be written there.
/// Throws Error (exit 2) at output.directory.
void check_output_directory(const Job& job);

/// Writes a whole file or none: path.tmp, fsync, rename. Makes the folder. Throws Error (exit 1) naming the file and
/// the system's reason (a full disk, say), and leaves no half file and an older one untouched.
void write_file(const std::string& path, std::string_view bytes);

/// Appends to a file in one write, so that several processes may share it (manifest.jsonl). Errors as write_file.
void append_file(const std::string& path, std::string_view bytes);

/// What to do about a picture.
enum class Existing : std::uint8_t { Render, Keep };

/// Pictures that exist are kept; `overwrite` renders all, `resume` those whose mgpu_job chunk is not `record`.
Existing existing_picture(const std::string& path, const std::string& record, bool overwrite, bool resume);

/// Where each job's report goes ("" for none): its name in the output directory, under --part with the part. Jobs that
/// would share a file get their own names in it: report-JOB.json.
std::vector<std::string> report_paths(std::span<const Job> jobs, const std::optional<PartOfRun>& part);

}  // namespace mgpu
