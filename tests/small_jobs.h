#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cli/job/job.h"
#include "tests/tensor_writer.h"

namespace mgpu::test {

/// Jobs over a small UNet on virtual devices, in a folder of their own.
class Jobs {
 public:
  Jobs();

  /// Writes into a folder that bears the job's name. `more`: further lines of the job.
  Job job(const std::string& name, int devices, int pictures, const std::string& more = {}) const;
  /// Likewise, on the devices that `gpu_ids` names, in pictures of that side in pixels.
  Job job_on(const std::string& gpu_ids, const std::string& name, int pictures, const std::string& more = {},
             int side = 32) const;

  std::string path(const std::string& name) const { return folder_.path(name); }
  std::string picture(const std::string& job, std::size_t index) const;
  void clear(const std::string& job) const;

 private:
  Folder folder_;
};

/// The files of a job's pictures.
std::vector<std::string> bytes_of(const Jobs& jobs, const std::string& job, std::size_t pictures);

}  // namespace mgpu::test
