#include "cli/plan/plan_job.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "cli/job/schedules.h"
#include "cli/plan/prompt_lengths.h"
#include "core/error.h"
#include "core/models/diffusion_model.h"
#include "core/strings.h"
#include "core/text/text_encoder.h"
#include "shard/make_plan.h"

namespace mgpu {
namespace {

constexpr std::int64_t kSmallestOffer = 256;  // pixels a side: below that a model draws nothing worth having

/// What `auto` comes to.
ComputeType resolve(ComputeType wanted, ComputeType automatic) {
  return wanted == ComputeType::Auto ? automatic : wanted;
}

at::ScalarType scalar_type_of(ComputeType type) {
  switch (type) {
    case ComputeType::Bf16:
      return at::kBFloat16;
    case ComputeType::Fp16:
      return at::kHalf;
    default:
      return at::kFloat;
  }
}

LargestPicture largest_picture(const Job& job, const ModelSet& set) {
  LargestPicture out;
  RunTimesteps timesteps(set.training());
  const PromptLengths lengths = text_lengths(job, set);
  out.chunk_tokens = lengths.in_chunks;
  out.text_tokens = std::max({out.text_tokens, lengths.whole, lengths.in_chunks});
  out.tiling = {.tile = *job.decode.tile, .overlap = *job.decode.overlap};
  out.tiling_is_fixed = job.decode.tile.given || job.decode.overlap.given;
  std::set<std::string_view> prompts;
  for (const ImageJob& image : job.images) {
    out.batch = std::max<std::int64_t>(out.batch, *image.batch);
    out.timesteps = std::max(out.timesteps, static_cast<std::int64_t>(timesteps.of(image).size()));
    const std::vector<std::string_view> used = run_prompts(image);
    out.texts = std::max(out.texts, static_cast<std::int64_t>(used.size()));
    prompts.insert(used.begin(), used.end());
    if (std::int64_t{*image.width} * *image.height > out.width * out.height)
      out.width = *image.width, out.height = *image.height;
  }
  out.prompts = static_cast<std::int64_t>(prompts.size());
  return out;
}

std::vector<ComponentNeed> needs_of(const Job& job, const ModelSet& models, const ComputeDtypes& dtypes,
                                    const LargestPicture& picture) {
  std::vector<ComponentNeed> out = component_needs(models, dtypes, picture);
  if (std::ranges::any_of(job.images, [](const ImageJob& image) { return bool(image.init_image); }))
    out.push_back(image_encoder_need(models, dtypes.vae, picture));
  return out;
}

/// The largest picture of the same shape that fits, its longer side counted in the model's unit, where one of
/// kSmallestOffer does.
template <class Fits>
std::optional<LargestPicture> smaller_picture(const LargestPicture& picture, std::int64_t unit, Fits fits) {
  const std::int64_t longer = std::max(picture.width, picture.height);
  const auto scaled = [&](std::int64_t side) {
    const auto length = [&](std::int64_t whole) { return std::max(unit, whole * side * unit / longer / unit * unit); };
    LargestPicture smaller = picture;
    smaller.width = length(picture.width), smaller.height = length(picture.height);
    return smaller;
  };
  std::int64_t largest = kSmallestOffer / unit, too_large = longer / unit;
  if (largest >= too_large || !fits(scaled(largest))) return std::nullopt;
  while (too_large - largest > 1) {
    const std::int64_t side = std::midpoint(largest, too_large);
    (fits(scaled(side)) ? largest : too_large) = side;
  }
  return scaled(largest);
}

/// What would fit instead: the same in bf16, its largest picture made smaller, or more memory.
NearestFit find_nearest_fit(const Job& job, const ModelSet& models, const ComputeDtypes& dtypes,
                            const LargestPicture& picture, const ChosenDevices& devices,
                            const PlacementRequest& request, const Plan& refused) {
  using enum NearestFit::Kind;
  const auto fits = [&](const ComputeDtypes& types, const LargestPicture& largest) {
    return can_fit(needs_of(job, models, types, largest), devices.rooms, request);
  };
  if (dtypes.unet == at::kFloat && fits({at::kBFloat16, at::kBFloat16, at::kBFloat16}, picture))
    return {.kind = Narrow};
  const auto smaller = smaller_picture(picture, models.training().size_multiple,
                                       [&](const LargestPicture& largest) { return fits(dtypes, largest); });
  if (smaller) return {.kind = SmallerSize, .width = smaller->width, .height = smaller->height};
  std::vector<DeviceId> used;
  for (const PlannedDevice& device : refused.devices)
    if (device.in_use()) used.push_back(device.room.id);
  if (used.empty()) return {};
  const auto more =
      missing_memory(needs_of(job, models, dtypes, picture), devices.rooms, request, used, refused.lacking_bytes());
  if (!more) return {};
  if (used.size() > 1) return {.kind = MoreMemory, .mebibytes = *more};
  const auto room = std::ranges::find(devices.rooms, used.front(), &DeviceRoom::id);
  const std::uint64_t now = (room->limit_bytes + (std::uint64_t{1} << 20) - 1) >> 20;
  return {.kind = Device, .mebibytes = now + *more, .limited_by = room->limited_by};
}

/// "; vram_limit names cuda:1, which the job does not use". Of a job without gpu_ids; of one with, a note says it
/// before it is planned.
template <class Value>
std::string unused_text(std::string_view key, const std::map<DeviceId, Value>& values, const ChosenDevices& devices) {
  std::string out;
  const auto has = [](const auto& list, const DeviceId& id, const auto& member) {
    return std::ranges::find(list, id, member) != list.end();
  };
  for (const auto& [id, value] : values)
    if (!has(devices.rooms, id, &DeviceRoom::id) && !has(devices.donors, id, &DeviceRoom::id) &&
        !has(devices.dropped, id, std::identity{}))
      out += fmt::format("; {} names {}, which the job does not use", key, id.to_string());
  return out;
}

/// The highest predicted peak of a device; 0 where it is not used.
std::uint64_t most_on(const Plan& plan, const DeviceId& device) {
  for (const PlannedDevice& planned : plan.devices)
    if (planned.room.id == device) return highest(planned.peak);
  return 0;
}

}  // namespace

PreparedJob plan_job(const Job& job, JobModels models, const ChosenDevices& devices) {
  const ComputeType automatic = devices.all_bf16 ? ComputeType::Bf16 : ComputeType::Fp32;
  const bool half_unet = devices.all_cuda && diffusion_model(models.set.diffusion).gpu_type() == at::kHalf;
  PreparedJob out;
  out.job = &job;
  // Encoders compute in fp32 from weights as they are stored, unless the job narrows them.
  out.types = {resolve(*job.dtype.unet, half_unet ? ComputeType::Fp16 : automatic),
               resolve(*job.dtype.clip, ComputeType::Fp32), resolve(*job.dtype.vae, automatic)};
  out.dtypes.unet = scalar_type_of(out.types.unet);
  out.dtypes.vae = scalar_type_of(out.types.vae);
  if (out.types.clip != ComputeType::Fp32) out.dtypes.encoders = scalar_type_of(out.types.clip);
  const PlacementRequest request = placement_request(job, devices);
  const LargestPicture picture = largest_picture(job, models.set);
  out.needs = needs_of(job, models.set, out.dtypes, picture);
  try {
    out.plan = make_plan(out.needs, devices.rooms, request);
    if (!out.plan.fits())
      out.nearest_fit = find_nearest_fit(job, models.set, out.dtypes, picture, devices, request, out.plan);
  } catch (const PlacementError& error) {
    throw placement_error(job, error);
  }
  out.rooms = devices.rooms;
  out.request = request;
  for (const DeviceId& id : devices.dropped)
    out.plan.mode_reason += fmt::format("; {} is missing and was dropped", id.to_string());
  if (!job.placement.gpu_ids.given) {
    out.plan.mode_reason += unused_text("vram_limit", job.placement.vram_limit->device, devices);
    out.plan.mode_reason += unused_text("speed", *job.placement.speed, devices);
  }
  out.models = std::move(models);
  return out;
}

PreparedJob prepare(const Job& job, JobModels models, const ChosenDevices& devices) {
  PreparedJob out = plan_job(job, std::move(models), devices);
  if (!out.plan.fits()) throw Error(Exit::DoesNotFit, Mark{job.file}, out.plan.shortfall, out.nearest_fit.text());
  return out;
}

std::string NearestFit::text() const {
  switch (kind) {
    case Kind::None:
      return {};
    case Kind::Narrow:
      return "dtype: bf16 would fit";
    case Kind::SmallerSize:
      return fmt::format("pictures of {}x{} would fit", width, height);
    case Kind::MoreMemory:
      return fmt::format("{}MB more on each device would fit", mebibytes);
    case Kind::Device:
      if (!limited_by.empty()) return fmt::format("{} has to leave {}MB: raise it", limited_by, mebibytes);
      return fmt::format("it takes a device or a vram_limit of {}MB", mebibytes);
  }
  return {};
}

std::optional<Plan> smaller_plan(const PreparedJob& job, const DeviceId& device) {
  std::vector<DeviceRoom> rooms = job.rooms;
  const auto own = std::ranges::find(rooms, device, &DeviceRoom::id);
  if (own == rooms.end()) return std::nullopt;
  own->limit_bytes = std::min(own->limit_bytes, most_on(job.plan, device));
  own->limit_bytes -= own->limit_bytes / 10;
  Plan plan = make_plan(job.needs, rooms, job.request);
  if (!plan.fits()) return std::nullopt;
  for (std::size_t i = 0; i < rooms.size(); ++i) plan.devices[i].room = job.rooms[i];
  if (most_on(plan, device) >= most_on(job.plan, device)) return std::nullopt;
  return plan;
}

}  // namespace mgpu
