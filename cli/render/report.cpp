#include "cli/render/report.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "cli/files/json_text.h"
#include "cli/plan/device_table.h"
#include "cli/plan/plan_json.h"
#include "core/strings.h"

namespace mgpu {
namespace {

using Json = nlohmann::ordered_json;

Json device_json(const DeviceReport& d) {
  return {{"id", d.id},
          {"name", d.name},
          {"uuid", d.uuid},
          {"total_bytes", d.total_bytes},
          {"limit_bytes", d.limit_bytes},
          {"driver_bytes", d.driver_bytes},
          {"before_bytes", d.before_bytes},
          {"after_load_bytes", d.after_load_bytes},
          {"peak_bytes", phases_json(d.peak_bytes)},
          {"predicted_peak_bytes", phases_json(d.predicted_peak_bytes)},
          {"assignments", assignments_json(d.assignments)},
          {"blocks_executed_per_pass", d.blocks_executed_per_pass},
          {"passes", d.passes},
          {"busy_seconds", d.busy_seconds},
          {"received_bytes", Json(d.received_bytes)},
          {"warnings", d.warnings}};
}

Json image_json(const ImageReport& image) {
  return {{"file", image.file},
          {"status", image.status},
          {"seed", image.seed},
          {"seconds",
           {{"encode", image.seconds.encode},
            {"sample", image.seconds.sample},
            {"decode", image.seconds.decode},
            {"write", image.seconds.write}}},
          {"sha256", image.sha256},
          {"error", image.error}};
}

/// "1.5 GB from cpu, 20.0 MB from cuda:1"
std::string received_text(const std::map<std::string, std::uint64_t>& received) {
  std::vector<std::string> out;
  for (const auto& [from, bytes] : received) out.push_back(fmt::format("{} from {}", bytes_text(bytes), from));
  return fmt::format("{}", fmt::join(out, ", "));
}

}  // namespace

std::string status_of(const std::vector<ImageReport>& images, bool interrupted) {
  if (interrupted) return "interrupted";
  const auto good = std::count_if(images.begin(), images.end(),
                                  [](const ImageReport& i) { return i.status == "ok" || i.status == "kept"; });
  if (good == static_cast<std::ptrdiff_t>(images.size())) return "ok";
  return good == 0 ? "failed" : "partial";
}

std::vector<std::string> count_warnings(const DeviceReport& device) {
  if (device.is_donor) return {};
  if (device.assignments.empty()) return {"no block assigned"};
  int planned = 0;
  for (const Assignment& assignment : device.assignments) {
    if (assignment.component == "unet") planned += assignment.blocks;
  }
  if (device.passes == 0 || device.blocks_executed_per_pass == planned) return {};
  return {fmt::format("the plan has {} blocks a pass, and {} were run", planned, device.blocks_executed_per_pass)};
}

std::string to_json(const Report& report) {
  Json devices = Json::array();
  for (const DeviceReport& device : report.devices) devices.push_back(device_json(device));
  Json images = Json::array();
  for (const ImageReport& image : report.images) images.push_back(image_json(image));
  const Json json{{"version", 1},
                  {"status", report.status},
                  {"mode", report.mode},
                  {"mode_reason", report.mode_reason},
                  {"job", report.job},
                  {"kernel_table", report.kernel_table},
                  {"devices", std::move(devices)},
                  {"images", std::move(images)}};
  return dump_json(json, 1) + "\n";
}

std::string device_table(const std::vector<DeviceReport>& devices) {
  std::string text = device_table_head("peak encode") + "\n";
  for (const DeviceReport& d : devices) {
    text += device_rows(d.id, d.assignments, memory_columns(d.limit_bytes, d.peak_bytes));
    if (!d.received_bytes.empty()) text += fmt::format("{:<8} received {}\n", "", received_text(d.received_bytes));
    for (const std::string& warning : d.warnings) text += fmt::format("{:<8} {}\n", "", warning);
  }
  return text;
}

std::string to_tables(const Report& report) {
  std::string text = fmt::format("{}: {}, mode {}{}{}\n", report.job, report.status, report.mode,
                                 report.mode_reason.empty() ? "" : ": ", report.mode_reason);
  text += device_table(report.devices);
  text += fmt::format("{:<7} {:>20} {:>8} {:>8} {:>8} {:>8}  file\n", "picture", "seed", "encode", "sample", "decode",
                      "write s");
  for (const ImageReport& i : report.images) {
    text += fmt::format("{:<7} {:>20} {:>8.2f} {:>8.2f} {:>8.2f} {:>8.2f}  {}\n", i.status, i.seed, i.seconds.encode,
                        i.seconds.sample, i.seconds.decode, i.seconds.write, i.file);
    if (!i.error.empty()) text += fmt::format("{:<7} {}\n", "", i.error);
  }
  return text;
}

std::string manifest_line(const ImageReport& image, const std::string& job, int index) {
  Json json{{"job", job}, {"index", index}};
  json.update(image_json(image));
  return dump_json(json, -1) + "\n";
}

}  // namespace mgpu
