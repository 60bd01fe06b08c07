#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/job/job.h"

namespace mgpu {

/// One picture that a job stands for: everything that is the picture's own.
struct Picture {
  int job = 0;                      ///< which of the jobs
  int index = 0;                    ///< {index}: its number in its job, from 0
  int item = 0;                     ///< {item}: which entry of `images`, from 0
  std::uint64_t seed = 0;           ///< of its run
  int in_batch = 0;                 ///< its place in the run's one draw of noise, from 0
  int batch = 1;                    ///< how many that draw is for
  std::string file;                 ///< name from the template, relative to the output directory
  std::string path;                 ///< the same with the directory
  const ImageJob* image = nullptr;  ///< its entry in the job; valid while the jobs are

  int width() const { return *image->width; }
  int height() const { return *image->height; }
  const SamplerOptions& sampler() const { return image->sampler; }
};

/// Throws Error at output.name when it is not a template of ours: {job} {index} {item} {seed} {width} {height}, each
/// with an optional width such as {index:04}; {{ and }} are braces. It must end in .png and stay inside the directory.
void check_output_names(const Job& job);

/// All pictures of the jobs, in order: images, then runs, then the batch. Throws Error at output.name when two would
/// have the same file, naming both entries.
std::vector<Picture> expand(std::span<const Job> jobs);

/// Picture numbers of --only: "0,3-5".
struct Only {
  std::vector<std::pair<int, int>> ranges;  ///< inclusive, ascending, apart
  bool has(int index) const;
};
Only parse_only(std::string_view text);

/// --part I/N, I from 0.
struct PartOfRun {
  int index = 0;
  int count = 1;
};
PartOfRun parse_part(std::string_view text);

/// --preview N: steps from one preview to the next, from 1.
int parse_preview(std::string_view text);

/// Throws Error at output.name where a picture's preview would take the place of another picture.
void check_previews(std::span<const Job> jobs, std::span<const Picture> pictures);

/// The pictures that --only and --part leave: the numbers asked for (in every job), then the I-th of N even runs of
/// neighbours, which share prompts. Throws Error for a number that no job has.
std::vector<Picture> select(std::vector<Picture> pictures, const std::optional<Only>& only,
                            const std::optional<PartOfRun>& part);

/// The report's name: "report.json", under --part "report-I-of-N.json".
std::string report_name(const std::string& name, const std::optional<PartOfRun>& part);

/// Where each job's report goes ("" for none): its name in the output directory, under --part with the part. Jobs that
/// would share a file get their own names in it: report-JOB.json.
std::vector<std::string> report_paths(std::span<const Job> jobs, const std::optional<PartOfRun>& part);

/// Where the preview of a picture lies: "out/a.png" -> "out/a.preview.png".
std::string preview_path(const std::string& picture);

}  // namespace mgpu
