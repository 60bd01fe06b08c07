#include "cli/commands.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/files/json_text.h"
#include "cli/files/png.h"
#include "cli/job/checks/checks.h"
#include "cli/job/checks/output_checks.h"
#include "cli/job/load_job.h"
#include "cli/job/notes.h"
#include "cli/job/picture_metadata.h"
#include "cli/job/schedules.h"
#include "cli/plan/device_probes.h"
#include "cli/plan/plan_job.h"
#include "cli/plan/plan_report.h"
#include "core/device_notes.h"
#include "core/links.h"
#include "core/model_set.h"
#include "core/read_file.h"
#include "core/strings.h"

namespace mgpu {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  return dump_json(json, 1) + "\n";
}

Json part_json(const PartSummary& part) {
  Json blocks = Json::object();
  for (const auto& [kind, count] : part.blocks) blocks[kind] = count;
  return {{"what", part.what},           {"supported", part.supported},
          {"prefix", part.prefix},       {"tensors", part.tensors},
          {"bytes", part.bytes},         {"dtypes", part.dtypes},
          {"blocks", std::move(blocks)}, {"quantisation", part.quantisation}};
}

std::string part_text(const PartSummary& part) {
  std::string text = fmt::format("{}{}\n", part.what, part.supported ? "" : " (not supported yet)");
  if (!part.prefix.empty()) text += fmt::format("  under        {}\n", part.prefix);
  text += fmt::format("  tensors      {}, {} bytes\n", part.tensors, part.bytes);
  for (const auto& [dtype, bytes] : part.dtypes) text += fmt::format("  {:<12} {} bytes\n", dtype, bytes);
  for (const auto& [kind, count] : part.blocks) text += fmt::format("  blocks       {} {}\n", count, kind);
  text += fmt::format("  quantisation {}\n", part.quantisation);
  return text;
}

Answer inspect_weights(const std::string& path, bool json) {
  const auto file = TensorFile::open(path);
  Json parts = Json::array();
  std::string text = fmt::format("{}: {} tensors, {} bytes, header sha256 {}\n", path, file->tensors().size(),
                                 file->file_bytes(), file->header_sha256());
  for (const Part& part : recognise(file)) {
    const PartSummary summary = summarise(part);
    parts.push_back(part_json(summary));
    text += part_text(summary);
  }
  const std::vector<std::string> rest = left_over(file);
  for (const std::string& name : rest) {
    const TensorInfo& info = *file->find(name);
    text += fmt::format("left over      {} {} {}\n", in_quotes(name), info.type_name(), shape_text(info.shape));
  }
  if (!json) return {Exit::Ok, text};
  return {Exit::Ok, dump({{"file", path},
                          {"tensors", file->tensors().size()},
                          {"bytes", file->file_bytes()},
                          {"header_sha256", file->header_sha256()},
                          {"parts", std::move(parts)},
                          {"left_over", rest}})};
}

Answer inspect_picture(const std::string& path, const std::string& bytes, bool json) {
  const std::map<std::string, std::string> text = read_png_text(bytes, path);
  const auto record = text.find("mgpu_job");
  if (record == text.end())
    fail_file(path, "is a picture without an mgpu_job record",
              "only pictures that mgpu-render made say how they were made");
  const std::string yaml = record_to_yaml(record->second, path);
  return {Exit::Ok, json ? dump(Json::parse(record->second)) : yaml};
}

Json link_json(const Link& link) {
  return {{"from", link.from.to_string()},       {"to", link.to.to_string()},
          {"peer_access", link.peer_access},     {"bytes_per_second", link.bytes_per_second},
          {"changes_bytes", link.changes_bytes}, {"fault", link.fault}};
}

/// What does not work as it should though it works, as "cuda:0: the system locks no more pages ...".
std::vector<std::string> notes_of(const DeviceSurvey& survey) {
  std::vector<std::string> out;
  for (const GpuInfo& gpu : survey.gpus)
    for (const std::string& note : device_notes(gpu.id)) out.push_back(gpu.id.to_string() + ": " + note);
  return out;
}

Json devices_json(const DeviceSurvey& survey, const std::vector<Link>& links) {
  Json devices = Json::array(), link_rows = Json::array();
  for (const GpuInfo& gpu : survey.gpus)
    devices.push_back({{"id", gpu.id.to_string()},
                       {"name", gpu.name},
                       {"uuid", gpu.uuid},
                       {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
                       {"total_bytes", gpu.total_bytes},
                       {"free_bytes", gpu.free_bytes},
                       {"unusable", unusable_reason(gpu)}});
  devices.push_back({{"id", "cpu"},
                     {"threads", survey.host_threads},
                     {"total_bytes", survey.host_total_bytes},
                     {"free_bytes", survey.host_free_bytes},
                     {"limited_by", survey.host_limit}});
  for (const Link& link : links) link_rows.push_back(link_json(link));
  std::vector<std::string> warnings = device_warnings(survey);
  std::ranges::copy(notes_of(survey), std::back_inserter(warnings));
  return {{"driver_version", survey.driver_version},
          {"runtime_version", survey.runtime_version},
          {"devices", std::move(devices)},
          {"links", std::move(link_rows)},
          {"warnings", std::move(warnings)}};
}

std::string unprobed_note(const Job& job, const ChosenDevices& devices) {
  std::vector<std::string> speeds;
  for (const DeviceRoom& room : devices.rooms) speeds.push_back(fmt::format("{} {}", room.id.to_string(), room.speed));
  return fmt::format("note: {}: speeds are not probed yet: {}; run probes them, and \"speed\" in the job sets them\n",
                     job.file, fmt::join(speeds, ", "));
}

/// What is counted for the driver of the job's GPUs, and why so much; "" for a supposed machine.
std::string driver_notes(const Job& job, const ChosenDevices& devices, const Machine& machine) {
  std::string out;
  for (const DeviceRoom& room : devices.rooms) {
    if (!room.id.is_cuda() || room.uuid.empty()) continue;
    const bool measured = known_driver_bytes(room.id, machine).has_value();
    out += fmt::format("note: {}: {}: context and libraries take {}, {}\n", job.file, room.id.to_string(),
                       bytes_text(room.driver_bytes),
                       measured ? "as measured here before" : "as assumed until run measures it");
  }
  return out;
}

}  // namespace

std::vector<Job> load_jobs(const Arguments& arguments) {
  std::vector<Job> jobs;
  if (std::ranges::count(arguments.files, "-") > 1)
    throw Error(Exit::Usage, Mark{"-"}, "standard input holds one job", "name it once");
  for (const std::string& file : arguments.files) jobs.push_back(load_job(file, arguments.settings));
  return jobs;
}

Answer validate(const Arguments& arguments) {
  const CheckedJobs checked = check_jobs(load_jobs(arguments));
  const std::vector<Job>& jobs = checked.jobs;
  Json list = Json::array();
  Answer out;
  out.error = note_lines(no_png_notes(checked.pictures));
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const std::string family(checked.models[i].set.diffusion.row->name);
    const std::vector<std::string> notes = job_notes(jobs[i], checked.models[i]);
    const auto count = std::ranges::count(checked.pictures, static_cast<int>(i), &Picture::job);
    out.text += fmt::format("{}: ok: {}, {} picture{}\n", jobs[i].file, family, count, count == 1 ? "" : "s");
    out.error += note_lines(notes);
    list.push_back(
        {{"job", jobs[i].file}, {"status", "ok"}, {"family", family}, {"pictures", count}, {"notes", notes}});
  }
  if (arguments.json) out.text = dump(list);
  return out;
}

Answer plan(const Arguments& arguments) {
  CheckedJobs checked = check_jobs(load_jobs(arguments));
  Machine machine = arguments.devices.empty() ? Machine{survey_devices()} : suppose_machine(arguments.devices);
  Answer out;
  const SpeedSource speeds{[&](const std::string& note) { out.error += fmt::format("note: {}\n", note); }};
  std::vector<std::string> plans;
  for (std::size_t i = 0; i < checked.jobs.size(); ++i) {
    const Job& job = checked.jobs[i];
    JobModels& models = checked.models[i];
    const std::vector<std::string> notes = job_notes(job, models);
    out.error += note_lines(notes);
    const ChosenDevices devices = remembered_devices(job, machine, speeds);
    if (!devices.unprobed.empty()) out.error += unprobed_note(job, devices);
    out.error += driver_notes(job, devices, machine);
    const PreparedJob planned = plan_job(job, std::move(models), devices);
    const std::string nearest_fit = planned.nearest_fit.text();
    const PlanReport report{job.file, planned.plan, nearest_fit, notes};
    plans.push_back(arguments.json ? to_json(report) : to_table(report));
    if (planned.plan.fits()) continue;
    out.exit = Exit::DoesNotFit;
    out.error += fmt::format("error: {}: {}\n", job.file, planned.plan.shortfall);
    if (!nearest_fit.empty()) out.error += fmt::format("  {}\n", nearest_fit);
  }
  out.text = arguments.json ? one_document(plans) : fmt::format("{}", fmt::join(plans, ""));
  return out;
}

Answer inspect(const Arguments& arguments) {
  const std::string& path = arguments.files.front();
  std::error_code fault;
  if (!std::filesystem::exists(path, fault)) fail_file(path, "no such file");
  const bool is_folder = std::filesystem::is_directory(path, fault);  // which a weight file's reader has words for
  if (is_folder || !begins_as_png(path)) return inspect_weights(path, arguments.json);
  return inspect_picture(path, read_file(path), arguments.json);
}

Answer devices(const Arguments& arguments) {
  DeviceSurvey survey = survey_devices();
  for (GpuInfo& gpu : survey.gpus) ask_free_memory(gpu);
  std::vector<DeviceId> usable;
  for (const GpuInfo& gpu : survey.gpus)
    if (unusable_reason(gpu).empty()) usable.push_back(gpu.id);
  const std::vector<Link> links = survey_links(usable);
  if (arguments.json) return {Exit::Ok, dump(devices_json(survey, links))};
  std::string text = describe_devices(survey) + describe_links(links);
  for (const std::string& note : notes_of(survey)) text += note + "\n";
  return {Exit::Ok, text};
}

Answer sigmas(const Arguments& arguments) {
  struct Schedule {
    std::vector<double> sigmas;
    std::vector<std::string> images;  // that run over it
  };
  std::vector<Schedule> schedules;
  std::map<std::vector<double>, std::size_t> known;
  for (Job& job : load_jobs(arguments)) {
    const ModelSet models = open_job(job).set;
    for (std::size_t i = 0; i < job.images.size(); ++i) {
      const ImageJob& image = job.images[i];
      std::vector<double> sigmas = run_schedule(image.sampler, models.training(), *image.width, *image.height).sigmas;
      const auto [place, is_new] = known.try_emplace(sigmas, schedules.size());
      if (is_new) schedules.push_back({std::move(sigmas), {}});
      schedules[place->second].images.push_back(arguments.files.size() > 1 ? fmt::format("{} images.{}", job.file, i)
                                                                           : fmt::format("images.{}", i));
    }
  }
  std::string text;
  for (const Schedule& schedule : schedules) {
    if (schedules.size() > 1) text += fmt::format("# {}\n", fmt::join(schedule.images, ", "));
    for (const double sigma : schedule.sigmas) text += fmt::format("{}\n", sigma);
  }
  return {Exit::Ok, text};
}

}  // namespace mgpu
