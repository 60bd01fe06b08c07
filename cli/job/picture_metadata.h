#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/job/job.h"
#include "cli/job/picture_list.h"
#include "cli/job/settings.h"

namespace mgpu {

/// The compute types that a job's `auto` came to.
struct ResolvedTypes {
  ComputeType unet = ComputeType::Fp32;
  ComputeType clip = ComputeType::Fp32;
  ComputeType vae = ComputeType::Fp32;
};

/// The `mgpu_job` chunk: as JSON (ASCII), what determines the picture and nothing else. --resume compares it as it
/// stands. `files`: all files in use, whether the job names them or not.
std::string picture_record(const Job& job, const Picture& picture, const ResolvedTypes& types,
                           const std::vector<FileIdentity>& files);

/// The `parameters` chunk as AUTOMATIC1111's web UI writes it, for the programs that read such text.
std::string a1111_parameters(const Job& job, const Picture& picture);

/// The job of a picture's record, as YAML that `run` accepts; comments say which files it was made with. Throws Error
/// naming `file` when the record is damaged.
std::string record_to_yaml(std::string_view record, const std::string& file);

/// The job that made a picture: file names are looked for beside it, in the working directory and in model_paths.
Job read_picture_job(std::string_view png, const std::string& file, const std::vector<Setting>& settings);

/// Throws Error (exit 2) at the first file that is not the one which the picture was made with (Job::expected_files).
void check_expected_files(const Job& job, const std::vector<FileIdentity>& files);

}  // namespace mgpu
