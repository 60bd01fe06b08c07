#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "shard/plan.h"

namespace mgpu {

struct DeviceReport {
  std::string id;
  std::string name;
  std::string uuid;
  std::uint64_t total_bytes = 0;
  std::uint64_t limit_bytes = 0;
  std::uint64_t driver_bytes = 0;  ///< context and libraries' modules
  std::uint64_t before_bytes = 0;
  std::uint64_t after_load_bytes = 0;
  Phases<std::uint64_t> peak_bytes;  ///< what was in use while the phase ran, at most
  Phases<std::uint64_t> predicted_peak_bytes;
  std::vector<Assignment> assignments;
  bool is_donor = false;                  ///< a donor: keeps blocks that others run
  double blocks_executed_per_pass = 0.0;  ///< counted as they ran, mean over the passes that touched the device
  std::int64_t passes = 0;                ///< evaluations of the diffusion model for one conditioning of one image
  double busy_seconds = 0.0;
  std::map<std::string, std::uint64_t> received_bytes;  ///< of passes and streamed blocks, by where they came from
  std::vector<std::string> warnings;
};

struct ImageReport {
  std::string file;    ///< relative to the output directory
  std::string status;  ///< ok, kept, failed, skipped
  std::uint64_t seed = 0;
  struct Seconds {
    double encode = 0.0;
    double sample = 0.0;
    double decode = 0.0;
    double write = 0.0;
  } seconds;
  std::string sha256;  ///< of the PNG file
  std::string error;
};

/// What a run came to: report.json's content (design.md section 7).
struct Report {
  std::string status;  ///< ok, partial, failed, interrupted: see status_of
  std::string mode;
  std::string mode_reason;
  std::string job;
  std::string kernel_table;
  std::vector<DeviceReport> devices;
  std::vector<ImageReport> images;
};

/// ok: every picture is there; failed: none; partial: some; interrupted: by a signal, whatever else.
std::string status_of(const std::vector<ImageReport>& images, bool interrupted);

/// What of a device's work is not as planned: a pass that ran other blocks than the plan gave it, or none given.
std::vector<std::string> count_warnings(const DeviceReport& device);

/// report.json, with a newline at its end.
std::string to_json(const Report& report);

/// The same for people: a table of devices and one of pictures.
std::string to_tables(const Report& report);

/// The table of devices: what each held, its limit and its peaks.
std::string device_table(const std::vector<DeviceReport>& devices);

/// One line of manifest.jsonl, with its newline: a picture's report and where it came from.
std::string manifest_line(const ImageReport& image, const std::string& job, int index);

}  // namespace mgpu
