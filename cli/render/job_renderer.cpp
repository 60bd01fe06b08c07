#include "cli/render/job_renderer.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "cli/files/png.h"
#include "cli/job/checks/output_checks.h"
#include "cli/job/picture_metadata.h"
#include "cli/render/existing_picture.h"
#include "cli/render/render_loop.h"
#include "cli/signals.h"
#include "core/device_notes.h"

namespace mgpu {
namespace {

DeviceReport report_of(const PlannedDevice& planned) {
  DeviceReport out;
  out.id = planned.room.id.to_string();
  out.name = planned.room.name;
  out.uuid = planned.room.uuid;
  out.total_bytes = planned.room.total_bytes;
  out.limit_bytes = planned.room.limit_bytes;
  out.driver_bytes = planned.room.driver_bytes;
  out.predicted_peak_bytes = planned.peak;
  out.assignments = planned.assignments;
  return out;
}

/// A donor's row: it keeps blocks, and computes nothing.
DeviceReport report_of(const PlannedDonor& donor) {
  DeviceReport out = report_of(PlannedDevice{donor.room, {}, donor.offloaded});
  out.is_donor = true;
  return out;
}

void add(DeviceReport& report, const Meter::Measured& measured) {
  report.before_bytes = measured.before_bytes;
  report.after_load_bytes = measured.after_load_bytes;
  report.peak_bytes = measured.peaks;
  report.blocks_executed_per_pass = measured.blocks_per_pass();
  report.passes = static_cast<std::int64_t>(measured.passes);
  report.busy_seconds = measured.busy_seconds;
  for (const auto& [from, bytes] : measured.received) report.received_bytes[from.to_string()] = bytes;
}

}  // namespace

JobRenderer::JobRenderer(const PreparedJob& prepared, std::vector<Picture> pictures, const RenderOptions& options,
                         Progress& progress)
    : job_(*prepared.job),
      prepared_(prepared),
      progress_(progress),
      preview_(options.preview),
      resumes_(options.resume),
      plan_(prepared.plan),
      pictures_(job_.file, job_.output.directory.path + "/" + kManifestName, progress) {
  for (Picture& picture : pictures) {
    std::string record = picture_record(job_, picture, prepared.types, prepared.models.files_of(*picture.image));
    // Once a signal has come, nothing will be rendered: what is there need not be looked at.
    const bool keep = caught_signal() == 0 &&
                      existing_picture(picture.path, record, options.overwrite, options.resume) == Existing::Keep;
    if (keep && !options.resume && !begins_as_png(picture.path)) progress_.note(no_png_note(picture.path));
    pictures_.add(std::move(picture), std::move(record), keep);
  }
}

Exit JobRenderer::run() {
  pictures_.tell_kept();
  if (resumes_) pictures_.mend_manifest();
  if (!pictures_.is_any_open()) return pictures_.code();
  try {
    render_all();
  } catch (const Interrupted&) {  // what is open stays skipped, unless the job has ended by itself
  } catch (...) {
    const std::exception_ptr cause = cause_of(std::current_exception(), prepared_.models.set);
    pictures_.fail(pictures_.all(), failure_of(cause, first_device()));
  }
  progress_.watch({});
  pictures_.close();
  if (resumes_) pictures_.mend_manifest();
  return pictures_.code();
}

Report JobRenderer::report() const {
  Report out;
  out.mode = plan_.mode;
  out.mode_reason = plan_.mode_reason + again_;
  out.job = job_.file;
  out.kernel_table = "untuned";
  out.images = pictures_.reports();
  out.status = status_of(out.images, pictures_.is_any_open());
  out.devices = device_reports();
  return out;
}

void JobRenderer::render_all() {
  std::optional<Failure> shortage = attempt();
  if (!shortage) return;
  // The plan counted too little, or somebody else took memory: first with the least that this placement can do with.
  again_ = fmt::format("; {} ran out of memory, and what failed was rendered again, pass by pass",
                       shortage->out_of_memory->to_string());
  progress_.note(shortage->why);
  saves_memory_ = true;
  shortage = attempt();
  if (shortage && make_smaller(*shortage->out_of_memory)) {
    again_ += fmt::format(", then with less on {}", shortage->out_of_memory->to_string());
    shortage = attempt();
  }
  if (!shortage) return;
  std::string table = device_table(device_reports());
  table.pop_back();
  pictures_.fail(pictures_.all(), {shortage->code, shortage->why + "\n" + table, {}});
}

std::optional<Failure> JobRenderer::attempt() {
  try {
    set_up();
  } catch (const Interrupted&) {
    throw;
  } catch (...) {
    Failure failure = failure_of(cause_of(std::current_exception(), prepared_.models.set), first_device());
    if (!failure.out_of_memory) throw;
    return failure;
  }
  return RenderLoop({job_, *engine_, *vae_runner_, *inputs_, pictures_, progress_, preview_}).render();
}

void JobRenderer::set_up() {
  if (!engine_) {
    engine_ = std::make_unique<Engine>(prepared_.models.set, prepared_.dtypes, plan_.of_devices_in_use());
    vae_runner_.emplace(*engine_, note_of_decoding());
  }
  progress_.watch([this] { return engine_->status(); });
  if (saves_memory_) {
    engine_->save_memory();
    engine_->release_cached();
  }
  if (!inputs_)
    encode();
  else if (is_moved_)
    inputs_->move_to(engine_->latent_device());
  is_moved_ = false;
  stop_if_requested();
  const Picture& first = pictures_.runs().front().front()->picture;
  progress_.phase(first.path, "load");
  const WarmUpShape warm_up_shape = {first.width(), first.height(), inputs_->text_tokens(first)};
  engine_->load(warm_up_shape, upcoming_conditionings(), [&] {
    vae_runner_->load_decoders();
    vae_runner_->warm_up(warm_up_shape);
  });
  prepared_.models.set.check_files();
}

std::function<void(const std::string&)> JobRenderer::note_of_decoding() {
  if (*job_.decode.mode != DecodeSetting::Auto) return {};
  return [this](const std::string& text) { progress_.note(text); };
}

/// What the runs start from. It is encoded together: each picture bears an equal share of the time.
void JobRenderer::encode() {
  Group group;
  for (const Group& run : pictures_.runs()) group.insert(group.end(), run.begin(), run.end());
  std::vector<const Picture*> pictures;
  for (const Entry* entry : group) pictures.push_back(&entry->picture);
  progress_.phase(pictures.front()->path, "encode");
  const TextualInversions inversions(job_.embedding_folders);
  const double seconds = engine_->measure(
      Phase::Encode, [&] { inputs_.emplace(*engine_, *vae_runner_, inversions, pictures, stop_if_requested); });
  for (Entry* entry : group) entry->report.seconds.encode = seconds / static_cast<double>(pictures.size());
}

/// What runs will be told.
std::vector<UpcomingConditioning> JobRenderer::upcoming_conditionings() {
  std::vector<const Picture*> pictures;
  for (const Group& run : pictures_.runs()) pictures.push_back(&run.front()->picture);
  return inputs_->texts_of(pictures, prepared_.models.set.training());
}

bool JobRenderer::make_smaller(const DeviceId& device) {
  if (*job_.placement.mode != Mode::Auto) return false;
  std::optional<Plan> smaller = smaller_plan(prepared_, device);
  if (!smaller) return false;
  progress_.watch({});
  vae_runner_.reset();
  engine_.reset();
  plan_ = std::move(*smaller);
  is_moved_ = true;
  return true;
}

const DeviceId& JobRenderer::first_device() const {
  return std::ranges::find_if(plan_.devices, &PlannedDevice::in_use)->room.id;
}

std::vector<DeviceReport> JobRenderer::device_reports() const {
  std::vector<DeviceReport> out;
  std::size_t number = 0;  // of the engine's devices, which are those in use
  for (const PlannedDevice& planned : plan_.devices) {
    DeviceReport& report = out.emplace_back(report_of(planned));
    if (engine_ && planned.in_use()) add(report, engine_->meter(number++).measured());
  }
  for (const PlannedDonor& donor : plan_.donors) {
    out.push_back(report_of(donor));
    if (engine_) out.back().peak_bytes = engine_->offloaded(donor.room.id);
  }
  for (DeviceReport& report : out) {
    report.warnings = count_warnings(report);
    std::ranges::copy(device_notes(parse_device(report.id).value()), std::back_inserter(report.warnings));
  }
  return out;
}

}  // namespace mgpu
