#pragma once

#include <string>
#include <vector>

#include "cli/job/job.h"
#include "core/devices.h"

namespace mgpu::test {

/// "GPU 0" of that compute capability, with 24 GB free.
GpuInfo gpu(int index, int major, int minor);

/// A machine with these GPUs and 64 GB of main memory.
DeviceSurvey survey_of(std::vector<GpuInfo> gpus);

/// The dev golden's job with its gpu_ids and dtype replaced by `lines`.
Job job_with(const std::string& lines);

}  // namespace mgpu::test
