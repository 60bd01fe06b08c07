#include "tests/plan_cases.h"

#include <fmt/ranges.h>

#include <numeric>

namespace mgpu::test {
namespace {

ComponentNeed random_component(std::mt19937_64& random, const char* name, Phase phase, int kinds, bool skip_paired) {
  ComponentNeed need{
      .name = name, .phase = phase, .blocks = {}, .activation = random() % (1024 * kMiB), .skip_paired = skip_paired};
  const int count = static_cast<int>(random() % 20 + 1);
  const bool unequal = random() % 2 == 0;
  for (int kind = 0; kind < kinds; ++kind) {
    const bool middle = skip_paired && kind == 1;
    BlockNeed block{fmt::format("kind{}", kind), middle        ? 1
                                                 : skip_paired ? count
                                                               : static_cast<int>(random() % 20 + 1)};
    for (int i = 0; i < block.count && unequal; ++i) {
      block.bytes_each.push_back(random() % (500 * kMiB) + 1);
      block.times.push_back(static_cast<double>(random() % 16 + 1));
    }
    const std::uint64_t each = random() % (500 * kMiB) + 1;
    block.bytes = unequal ? std::accumulate(block.bytes_each.begin(), block.bytes_each.end(), std::uint64_t{0})
                          : each * static_cast<std::uint64_t>(block.count);
    need.bytes += block.bytes;
    need.blocks.push_back(block);
  }
  need.head = random() % (300 * kMiB);
  need.bytes += need.head + random() % (300 * kMiB);
  need.replicated_bytes = random() % (50 * kMiB);
  need.latent_device_bytes = random() % (50 * kMiB);
  return need;
}

}  // namespace

std::vector<ComponentNeed> components() {
  std::vector<ComponentNeed> out = {
      {"clip_l", Phase::Encode, {{"layer", 12, 200 * kMiB}}, 250 * kMiB, 10 * kMiB},
      {"t5xxl", Phase::Encode, {{"layer", 24, 9000 * kMiB}}, 9500 * kMiB, 300 * kMiB},
      {"unet", Phase::Sample, {{"double", 19, 12000 * kMiB}, {"single", 38, 10000 * kMiB}}, 22500 * kMiB, 900 * kMiB},
      {"vae", Phase::Decode, {{"level", 4, 100 * kMiB}}, 110 * kMiB, 2500 * kMiB}};
  out.back().indivisible = true;
  out.back().time_a_pass = 0.05;
  return out;
}

DeviceRoom room(std::uint64_t limit) {
  DeviceRoom out;
  out.id = DeviceId::cuda(0);
  out.total_bytes = 81920 * kMiB;
  out.limit_bytes = limit;
  out.driver_bytes = 512 * kMiB;
  return out;
}

std::vector<DeviceRoom> rooms(const std::vector<std::uint64_t>& limits) {
  std::vector<DeviceRoom> out;
  for (const std::uint64_t limit : limits) {
    out.push_back(room(limit));
    out.back().id = DeviceId::cuda(static_cast<int>(out.size()) - 1);
  }
  return out;
}

std::vector<ComponentNeed> unet() {
  std::vector<std::uint64_t> down, up;
  for (const std::uint64_t mib : {10, 40, 80, 120, 160, 160}) down.push_back(mib * kMiB);
  for (auto mib = down.rbegin(); mib != down.rend(); ++mib) up.push_back(*mib * 2);
  const BlockNeed middle{"middle", 1, 200 * kMiB};
  return {{.name = "unet",
           .phase = Phase::Sample,
           .blocks = {{"down", 6, 570 * kMiB, down}, middle, {"up", 6, 1140 * kMiB, up}},
           .bytes = 2000 * kMiB,
           .activation = 300 * kMiB,
           .head = 20 * kMiB,
           .skip_paired = true}};
}

std::string ranges_of(const Plan& plan, std::string_view component) {
  std::vector<std::string> out;
  for (const PlannedDevice& device : plan.devices)
    for (const Assignment& a : device.assignments)
      if (a.component == component)
        out.push_back(
            fmt::format("{} {} {}-{}{}", device.room.id.to_string(), a.kind, a.first, a.last, a.streamed ? "*" : ""));
  return fmt::format("{}", fmt::join(out, ", "));
}

std::string summary_of(const Plan& plan) {
  std::string out = plan.mode + plan.mode_reason + plan.shortfall;
  for (const char* component : {"clip_l", "t5xxl", "unet", "vae"}) out += "; " + ranges_of(plan, component);
  return out;
}

DeviceRoom main_memory(std::uint64_t bytes) {
  DeviceRoom out;
  out.id = DeviceId::cpu();
  out.total_bytes = out.limit_bytes = bytes;
  return out;
}

std::vector<ComponentNeed> random_components(std::mt19937_64& random) {
  const bool skip_paired = random() % 2 == 0;
  std::vector<ComponentNeed> out = {random_component(random, "clip_l", Phase::Encode, 1, false),
                                    random_component(random, "unet", Phase::Sample, skip_paired ? 3 : 2, skip_paired),
                                    random_component(random, "vae", Phase::Decode, 1, false)};
  out.back().indivisible = true;
  if (random() % 2 == 0) out.insert(out.begin() + 1, random_component(random, "t5xxl", Phase::Encode, 1, false));
  return out;
}

}  // namespace mgpu::test
