#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/plan/plan_job.h"
#include "cli/render/encoded_inputs.h"
#include "cli/render/picture_tracker.h"
#include "cli/render/render.h"
#include "cli/render/report.h"
#include "cli/render/vae_runner.h"
#include "core/progress.h"
#include "shard/engine.h"

namespace mgpu {

/// Renders one job's pictures on its engine.
class JobRenderer {
 public:
  JobRenderer(const PreparedJob& prepared, std::vector<Picture> pictures, const RenderOptions& options,
              Progress& progress);

  /// Returns the worst that happened: what is thrown on the way is in the report. Pictures that run out of memory are
  /// tried again, one pass at a time, then, under `mode: auto`, in a smaller placement.
  Exit run();

  Report report() const;

 private:
  void render_all();
  /// Renders what is open, and returns what of memory was lacking for what still is.
  std::optional<Failure> attempt();
  void set_up();
  void encode();
  /// What is said where a picture is decoded otherwise than planned, which `decode.way: auto` allows.
  std::function<void(const std::string&)> note_of_decoding();
  std::vector<UpcomingConditioning> upcoming_conditionings();
  /// Makes a plan that asks less of a device, and drops the engine. False: there is none.
  bool make_smaller(const DeviceId& device);

  const DeviceId& first_device() const;
  std::vector<DeviceReport> device_reports() const;

  const Job& job_;
  const PreparedJob& prepared_;
  Progress& progress_;
  int preview_;
  bool resumes_;
  Plan plan_;
  std::string again_;  ///< why pictures were rendered again
  bool saves_memory_ = false;
  bool is_moved_ = false;  ///< encodings lie where an engine's runs began that is gone
  PictureTracker pictures_;
  std::unique_ptr<Engine> engine_;
  std::optional<VaeRunner> vae_runner_;
  std::optional<EncodedInputs> inputs_;
};

}  // namespace mgpu
