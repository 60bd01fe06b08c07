#include "shard/plan_text.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "core/strings.h"

namespace mgpu {
namespace {

/// What is said where weights that serve only before the steps leave the devices.
std::string precomputed_text(const Plan& plan, const std::vector<ComponentNeed>& components) {
  std::uint64_t bytes = 0;
  for (const ComponentNeed& need : components)
    for (const BlockNeed& kind : need.blocks)
      for (int i = 0; i < kind.count; ++i) bytes += kind.precomputed_of(i);
  if (plan.keeps_precomputed || bytes == 0) return {};
  return fmt::format("; {} that serve only before the steps are read before runs begin", bytes_text(bytes));
}

/// "; 5.2 GB of the unet streamed from cpu"
std::string streamed_text(const Plan& plan, const std::vector<ComponentNeed>& components) {
  std::map<std::string, std::vector<std::string>> parts;  // by donor
  for (const ComponentNeed& need : components)
    for (const auto& [donor, bytes] : plan.streamed_bytes(need.name))
      parts[donor].push_back(fmt::format("{} of the {}", bytes_text(bytes), need.name));
  std::string out;
  for (const auto& [donor, texts] : parts) out += fmt::format("; {} streamed from {}", fmt::join(texts, ", "), donor);
  return out;
}

/// "; pictures are coded by 4 devices together", "; in tiles of at most 1024x1024 ..."
std::string decode_text(const Plan& plan) {
  const std::size_t vae_devices = plan.devices_of("vae").size();
  std::string out;
  if (vae_devices > 1) out += fmt::format("; pictures are coded by {} devices together", vae_devices);
  if (plan.decode.mode == DecodeMode::Slabs) out += "; pictures are decoded slab by slab, to the same bits";
  if (plan.decode.mode == DecodeMode::Tiled)
    out += fmt::format(
        "; pictures are decoded in tiles of at most {0}x{0}, their statistics estimated from a smaller copy",
        plan.decode.tiling.tile);
  return out;
}

}  // namespace

PhaseBytes peak_of(const PlannedDonor& donor) {
  PhaseBytes out = donor.offloaded;
  for (const Phase phase : kPhases) out[phase] += out[phase] > 0 ? donor.room.driver_bytes : 0;
  return out;
}

std::string shortfall_text(const Plan& plan) {
  std::vector<std::string> sentences;
  const auto add = [&](const DeviceRoom& room, const PhaseBytes& peak) {
    const Phase worst = *std::ranges::max_element(kPhases, {}, [&](Phase phase) { return peak[phase]; });
    if (std::ranges::find(plan.shortfalls, room.id, &Shortfall::device) == plan.shortfalls.end()) return;
    const std::uint64_t need = peak[worst], limit = room.limit_bytes;
    const std::string by = room.limited_by.empty() ? "" : fmt::format(" ({})", room.limited_by);
    sentences.push_back(fmt::format("{} needs {} to {} and may use {}{}: {} short", room.id.to_string(),
                                    bytes_text(need), name_of(worst), bytes_text(limit), by, bytes_text(need - limit)));
  };
  for (const PlannedDevice& device : plan.devices) add(device.room, device.peak);
  for (const PlannedDonor& donor : plan.donors) add(donor.room, peak_of(donor));
  return fmt::format("{}", fmt::join(sentences, "; "));
}

std::string means_text(const Plan& plan, const std::vector<ComponentNeed>& components) {
  return precomputed_text(plan, components) + streamed_text(plan, components) + decode_text(plan);
}

}  // namespace mgpu
