#include "cli/prepare.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli/file_identity.h"
#include "cli/init_image.h"
#include "cli/inversion_files.h"
#include "core/error.h"
#include "core/strings.h"
#include "shard/image_needs.h"

namespace mgpu {
namespace {

// The context and the kernels of cuBLAS, cuDNN and ours: 1.0 GiB measured on an H200.
constexpr std::uint64_t kDriverBytes = std::uint64_t{1126} << 20;
constexpr int kLowestForBf16 = 80;            // compute capability, times ten
constexpr std::int64_t kSmallestOffer = 256;  // pixels a side: below that a model draws nothing worth having

/// Every file that the picture depends on, each once.
std::vector<FileIdentity> identities(const ModelSet& set) {
  std::vector<const TensorFile*> seen;
  std::vector<FileIdentity> out;
  std::vector<const Part*> parts = {&set.diffusion};
  for (const std::optional<Part>* encoder : {&set.clip_l, &set.clip_g, &set.t5xxl})
    if (*encoder) parts.push_back(&**encoder);
  parts.push_back(&set.vae);
  for (const Part* part : parts) {
    if (std::ranges::find(seen, part->file.get()) != seen.end()) continue;
    seen.push_back(part->file.get());
    out.push_back(identity_of(*part->file));
  }
  out.push_back(identity_of(set.clip_tokenizer));
  if (!set.t5xxl_tokenizer.empty()) out.push_back(identity_of(set.t5xxl_tokenizer));
  return out;
}

/// Init images and masks, each once.
std::map<std::string, FileIdentity> picture_identities(const Job& job) {
  std::map<std::string, FileIdentity> out;
  for (const ImageJob& image : job.images)
    for (const FileReference* file : picture_files(image))
      if (!out.contains(file->path)) out.emplace(file->path, identity_of(file->path));
  return out;
}

void check_encoder(const Job& job, const Part& vae) {
  if (vae.vae().encoder) return;
  for (const ImageJob& image : job.images)
    if (image.init_image)
      throw job.error(
          image.init_image.mark,
          fmt::format("\"init_image\" needs an encoder, and the autoencoder in {} has none", vae.file->path()),
          "name a whole autoencoder under \"vae\"");
}

/// The job's device: the one it names, else the first GPU that can be used, else the CPU.
DeviceId choose_device(const Job& job, const DeviceSurvey& survey) {
  const auto& wanted = job.placement.gpu_ids;
  if (!wanted.given) {
    const auto usable =
        std::ranges::find_if(survey.gpus, [](const GpuInfo& gpu) { return unusable_reason(gpu).empty(); });
    return usable == survey.gpus.end() ? DeviceId::cpu() : usable->id;
  }
  const DeviceId id = wanted->front();
  if (!id.is_cuda()) return id;
  const auto gpu = std::ranges::find(survey.gpus, id, &GpuInfo::id);
  if (gpu == survey.gpus.end()) {
    throw job.error(wanted.mark, fmt::format("device \"{}\" is not on this machine", id.to_string()),
                    fmt::format("there are: {}", device_list(survey)));
  }
  if (const std::string reason = unusable_reason(*gpu); !reason.empty()) {
    throw job.error(wanted.mark, fmt::format("device \"{}\" cannot be used: {}", id.to_string(), reason));
  }
  return id;
}

/// What to say of GPUs that a job without gpu_ids might have expected to work; empty where there are none.
std::string idle_gpus(const Job& job, const DeviceId& chosen, const DeviceSurvey& survey) {
  if (job.placement.gpu_ids.given) return {};
  std::vector<std::string> idle;
  for (const GpuInfo& gpu : survey.gpus)
    if (gpu.id != chosen && unusable_reason(gpu).empty()) idle.push_back(gpu.id.to_string());
  if (idle.empty()) return {};
  return fmt::format("; {} idle: this version renders a job on one device", fmt::join(idle, ", "));
}

DeviceRoom room_of(const Job& job, const DeviceId& id, const DeviceSurvey& survey) {
  // What this program holds is no longer free, and is the CPU's to count; virtual devices share it.
  const std::uint64_t program = id == DeviceId::cpu() ? survey.process_bytes : 0;
  DeviceRoom room{id, "CPU", "", survey.host_total_bytes, survey.host_free_bytes + program, program};
  if (id.is_cuda()) {
    const GpuInfo& gpu = *std::ranges::find(survey.gpus, id, &GpuInfo::id);
    room = {id, gpu.name, gpu.uuid, gpu.total_bytes, gpu.free_bytes, kDriverBytes};
  }
  const VramLimit& limit = *job.placement.vram_limit;
  if (const auto own = limit.device.find(id); own != limit.device.end()) {
    room.limit_bytes = own->second;
  } else if (limit.each) {
    room.limit_bytes = *limit.each;
  }
  return room;
}

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

bool has_bf16(const DeviceId& id, const DeviceSurvey& survey) {
  const auto gpu = std::ranges::find(survey.gpus, id, &GpuInfo::id);
  return gpu != survey.gpus.end() && gpu->major * 10 + gpu->minor >= kLowestForBf16;
}

LargestPicture largest_picture(const Job& job) {
  LargestPicture out;
  for (const ImageJob& image : job.images) {
    if (std::int64_t{*image.width} * *image.height > out.width * out.height)
      out.width = *image.width, out.height = *image.height;
    // A token is at least one byte of a prompt, and most are several: no prompt needs more than this.
    for (const std::string_view prompt : prompts_of(image))
      out.text_tokens = std::max<std::int64_t>(out.text_tokens, static_cast<std::int64_t>(prompt.size() / 2));
  }
  return out;
}

std::vector<ComponentNeed> needs_of(const Job& job, const ModelSet& models, const ComputeDtypes& dtypes,
                                    const LargestPicture& picture) {
  std::vector<ComponentNeed> out = component_needs(models, dtypes, picture);
  if (std::ranges::any_of(job.images, [](const ImageJob& image) { return bool(image.init_image); }))
    out.push_back(image_encoder_need(models.vae, dtypes.vae, picture.width * picture.height));
  return out;
}

/// What would fit instead of a job that does not: the same in bf16, its largest picture made smaller, or more memory.
std::string nearest_fit(const Job& job, const ModelSet& models, const ComputeDtypes& dtypes,
                        const LargestPicture& picture, const DeviceRoom& room) {
  const auto plan = [&](const ComputeDtypes& types, const LargestPicture& size) {
    return plan_single(needs_of(job, models, types, size), room);
  };
  const ComputeDtypes narrow{at::kBFloat16, at::kBFloat16, at::kBFloat16};
  if (dtypes.unet == at::kFloat && plan(narrow, picture).fits()) return "dtype: bf16 would fit";
  const std::int64_t unit = models.training().size_multiple;
  const std::int64_t longer = std::max(picture.width, picture.height);
  for (std::int64_t side = longer - longer % unit; side >= kSmallestOffer; side -= unit) {
    const auto scaled = [&](std::int64_t length) { return std::max(unit, length * side / longer / unit * unit); };
    const LargestPicture smaller{scaled(picture.width), scaled(picture.height), picture.text_tokens};
    if (plan(dtypes, smaller).fits()) return fmt::format("pictures of {}x{} would fit", smaller.width, smaller.height);
  }
  const PhaseBytes peak = plan(dtypes, picture).devices.front().peak;
  const std::uint64_t most = std::max({peak.encode, peak.sample, peak.decode});
  return fmt::format("it takes a device or a vram_limit of {}MB", (most >> 20) + 1);
}

/// Throws Error at a clip_skip that would change nothing.
void check_clip_skip(const Job& job, const ModelSet& set) {
  if (!set.is_flux()) return;
  for (const ImageJob& image : job.images) {
    if (*image.sampler.clip_skip == 0) continue;
    throw job.error(image.sampler.clip_skip.mark, fmt::format("clip_skip has no effect on {}", set.diffusion.row->name),
                    "it reads T5, and of CLIP the pooled output alone; leave clip_skip out");
  }
}

}  // namespace

std::vector<FileIdentity> JobModels::files_of(const ImageJob& image) const {
  std::vector<FileIdentity> out = files;
  const auto add = [&](const FileIdentity& file) {
    if (std::ranges::find(out, file) == out.end()) out.push_back(file);
  };
  for (const std::string& name : inversions_of(image)) add(inversions.at(name));
  for (const FileReference* file : picture_files(image)) add(pictures.at(file->path));
  return out;
}

JobModels open_job(Job& job) {
  const ModelFiles& files = job.files;
  ModelSet set = open_models({.checkpoint = files.checkpoint.path,
                              .clip_l = files.clip_l.path,
                              .clip_g = files.clip_g.path,
                              .t5xxl = files.t5xxl.path,
                              .vae = files.vae.path,
                              .clip_tokenizer = files.clip_tokenizer.path,
                              .t5xxl_tokenizer = files.t5xxl_tokenizer.path});
  const int multiple = set.training().size_multiple;
  check_init_images(job, multiple);
  check_sizes(job, multiple, set.diffusion.row->name);
  check_shift(job, set.training().prediction, set.diffusion.row->name);
  check_encoder(job, set.vae);
  check_clip_skip(job, set);
  std::vector<FileIdentity> identified = identities(set);
  auto inversions = find_inversions(job, set);
  JobModels out{std::move(set), std::move(identified), std::move(inversions), picture_identities(job)};
  std::vector<FileIdentity> all = out.files;
  for (const auto* named : {&out.inversions, &out.pictures})
    for (const auto& [name, file] : *named) all.push_back(file);
  check_expected_files(job, all);
  return out;
}

PreparedJob prepare(const Job& job, JobModels models, const DeviceSurvey& survey) {
  const DeviceId id = choose_device(job, survey);
  const ComputeType automatic = has_bf16(id, survey) ? ComputeType::Bf16 : ComputeType::Fp32;
  const bool half_unet = id.is_cuda() && !models.set.is_flux();  // Stable Diffusion's UNets are released in fp16
  PreparedJob out;
  out.job = &job;
  // Encoders compute in fp32 from weights as they are stored, unless the job narrows them.
  out.types = {resolve(*job.dtype.unet, half_unet ? ComputeType::Fp16 : automatic),
               resolve(*job.dtype.clip, ComputeType::Fp32), resolve(*job.dtype.vae, automatic)};
  out.dtypes.unet = scalar_type_of(out.types.unet);
  out.dtypes.vae = scalar_type_of(out.types.vae);
  if (out.types.clip != ComputeType::Fp32) out.dtypes.encoders = scalar_type_of(out.types.clip);
  const DeviceRoom room = room_of(job, id, survey);
  const LargestPicture picture = largest_picture(job);
  out.plan = plan_single(needs_of(job, models.set, out.dtypes, picture), room);
  out.plan.mode_reason += idle_gpus(job, id, survey);
  out.models = std::move(models);
  if (!out.plan.fits()) {
    throw Error(Exit::DoesNotFit, Mark{job.file}, out.plan.shortfall,
                nearest_fit(job, out.models.set, out.dtypes, picture, room));
  }
  return out;
}

}  // namespace mgpu
