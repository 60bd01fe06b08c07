#include "cli/plan/plan_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/files/json_text.h"
#include "cli/plan/device_table.h"
#include "cli/plan/plan_json.h"
#include "core/strings.h"

namespace mgpu {
namespace {

using Json = nlohmann::ordered_json;

double slowest(const Plan& plan) {
  double out = 0.0;
  for (const PlannedDevice& device : plan.devices) out = std::max(out, device.time);
  return out;
}

Json device_json(const PlannedDevice& d, double slowest) {
  return {{"id", d.room.id.to_string()},
          {"name", d.room.name},
          {"uuid", d.room.uuid},
          {"total_bytes", d.room.total_bytes},
          {"limit_bytes", d.room.limit_bytes},
          {"driver_bytes", d.room.driver_bytes},
          {"speed", d.room.speed},
          {"predicted_peak_bytes", phases_json(d.peak)},
          {"assignments", assignments_json(d.assignments)},
          {"relative_time", slowest > 0.0 ? d.time / slowest : 0.0}};
}

}  // namespace

std::string to_json(const PlanReport& report) {
  const Plan& plan = report.plan;
  Json devices = Json::array(), shortfalls = Json::array();
  for (const PlannedDevice& device : plan.devices) devices.push_back(device_json(device, slowest(plan)));
  for (const PlannedDonor& donor : plan.donors) devices.push_back(device_json({donor.room, {}, donor.offloaded}, 0.0));
  for (const Shortfall& lack : plan.shortfalls)
    shortfalls.push_back({{"device", lack.device.to_string()}, {"phase", name_of(lack.phase)}, {"bytes", lack.bytes}});
  const Json json{{"version", 1},
                  {"job", report.job},
                  {"fits", plan.fits()},
                  {"mode", plan.mode},
                  {"mode_reason", plan.mode_reason},
                  {"devices", std::move(devices)},
                  {"shortfall", std::move(shortfalls)},
                  {"nearest_fit", report.nearest_fit},
                  {"notes", report.notes}};
  return dump_json(json, 1) + "\n";
}

std::string to_table(const PlanReport& report) {
  const Plan& plan = report.plan;
  std::string text = fmt::format("{}: {}, mode {}: {}\n", report.job, plan.fits() ? "fits" : "does not fit", plan.mode,
                                 plan.mode_reason);
  text += device_table_head("encode") + "   time\n";
  for (const PlannedDevice& d : plan.devices) {
    const double most = slowest(plan);
    const std::string time = most > 0.0 ? fmt::format(" {:>10.0f} %", 100.0 * d.time / most) : "";
    text += device_rows(d.room.id.to_string(), d.assignments, memory_columns(d.room.limit_bytes, d.peak) + time);
  }
  for (const PlannedDonor& donor : plan.donors)
    text += device_rows(donor.room.id.to_string(), {}, memory_columns(donor.room.limit_bytes, donor.offloaded));
  for (const Shortfall& lack : plan.shortfalls)
    text += fmt::format("{} lacks {} to {}\n", lack.device.to_string(), bytes_text(lack.bytes), name_of(lack.phase));
  if (!report.nearest_fit.empty()) text += report.nearest_fit + "\n";
  return text;
}

}  // namespace mgpu
