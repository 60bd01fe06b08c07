#include "shard/job_time.h"

#include <algorithm>

namespace mgpu {
namespace {

// Copying all of a model's blocks takes so much longer than computing them on the fastest device. FLUX.1-dev at
// 1024x1024 in bf16, 17 GB of blocks: an RTX 4090 on PCIe 4 (25 GB/s) 1.3, an RTX 3090 on the same 0.6, an H200 on PCIe
// 5 (55 GB/s measured) 2.6.
constexpr double kCopyTime = 1.3;
// Of a pass's time on the fastest device: sending 27 MiB of FLUX.1's state there and back, and two threads that wake.
constexpr double kHandOver = 0.005;
// Reading Flux's modulation anew costs some hundredths of a run's time.
constexpr double kReadingPrecomputed = 1.03;
// Streaming, copies hidden: they take some of the memory's bandwidth ...
constexpr double kStreaming = 1.02;
// ... and where passes flow through several devices, one that streams hands several on at a time, and the next one
// waits for all of them; a link that is slower than it is taken to be holds up all devices.
constexpr double kStreamingInFlow = 1 / 0.85;

bool has_precomputed(const ComponentNeed& need) {
  return std::ranges::any_of(need.blocks, [](const BlockNeed& kind) { return !kind.precomputed.empty(); });
}

const PlacedComponent* placed_in(const Placement& placement, Phase phase) {
  const auto placed = std::ranges::find(placement.components, phase, [](const auto& one) { return one.need->phase; });
  return placed == placement.components.end() ? nullptr : &*placed;
}

}  // namespace

double fastest_of(const std::vector<DeviceRoom>& devices) {
  return std::ranges::max_element(devices, {}, &DeviceRoom::speed)->speed;
}

double time_factor(bool keeps_precomputed, const std::vector<ComponentNeed>& components) {
  return !keeps_precomputed && std::ranges::any_of(components, has_precomputed) ? kReadingPrecomputed : 1.0;
}

double stage_time(const StageWork& work, const Chain& chain, double speed, double fastest, std::uint64_t together) {
  const double computing = (work.blocks + work.decodes) / speed;
  if (work.streamed == 0) return computing;
  const double part =
      static_cast<double>(work.streamed) / static_cast<double>(std::max<std::uint64_t>(1, chain.bytes_of_steps()));
  const double copying = kCopyTime * chain.time() * part / fastest / static_cast<double>(together);
  return std::max(computing, copying);
}

double decoding_time(const PlacedComponent& decoder, std::size_t device, const PlacementContext& context) {
  if (decoder.runs[device].empty()) return 0.0;
  double all = 0.0;
  for (std::size_t d = 0; d < decoder.runs.size(); ++d) all += decoder.runs[d].empty() ? 0.0 : context.devices[d].speed;
  const double slowness = decoder.mode ? decoder.mode->slowness : 1.0;
  return decoder.need->time_a_pass * slowness * context.devices[device].speed / all;
}

double stage_time(const Placement& placement, const PlacedComponent& diffusion, std::size_t device,
                  const PlacementContext& context, std::size_t used) {
  StageWork work{.blocks = diffusion.chain.time(diffusion.runs[device]), .streamed = diffusion.offloads[device].bytes};
  if (const PlacedComponent* decoder = placed_in(placement, Phase::Decode))
    work.decodes = decoding_time(*decoder, device, context) * diffusion.chain.time();
  return stage_time(work, diffusion.chain, context.devices[device].speed, fastest_of(context.devices),
                    context.together(used));
}

double hand_over_time(const Chain& chain, const PlacementContext& context) {
  return kHandOver * chain.time() / fastest_of(context.devices);
}

double job_time(const Placement& placement, const PlacementContext& context) {
  const PlacedComponent* diffusion = placed_in(placement, Phase::Sample);
  if (!diffusion) return 0.0;
  const auto used = static_cast<std::size_t>(
      std::ranges::count_if(diffusion->runs, [](const ChainRange& run) { return !run.empty(); }));
  double slowest = 0.0, all = hand_over_time(diffusion->chain, context) * static_cast<double>(used - 1);
  for (std::size_t d = 0; d < context.devices.size(); ++d) {
    const double time = stage_time(placement, *diffusion, d, context, used);
    slowest = std::max(slowest, time);
    all += time;
  }
  const double passes = static_cast<double>(context.in_flight.sampling.passes + 1);
  const double reading = !context.keeps_precomputed && has_precomputed(*diffusion->need) ? kReadingPrecomputed : 1.0;
  const bool streams =
      std::ranges::any_of(diffusion->offloads, [](const OffloadedBlocks& offload) { return offload.bytes > 0; });
  const double streaming = !streams ? 1.0 : used > 1 && passes > 1.0 ? kStreamingInFlow : kStreaming;
  return std::max(slowest, all / passes) * reading * streaming;
}

}  // namespace mgpu
