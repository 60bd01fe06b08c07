#include <fmt/format.h>

#include "cli/job.h"

// What a job file may ask for and this version cannot do yet: the one place that says so.

namespace mgpu {
namespace {

class Refusal {
 public:
  explicit Refusal(const Job& job) : job_(job) {}

  void when(bool asked, const Mark& mark, std::string_view what, std::string hint = {}) const {
    if (asked) throw job_.error(mark, fmt::format("{} is not supported yet", what), std::move(hint));
  }

 private:
  const Job& job_;
};

bool is_one_device(const ComponentAllocation& allocation, const PlacementOptions& placement) {
  if (!allocation.expert.empty() || allocation.virtual_vram_gb > 0.0 || !allocation.donors.empty()) return false;
  if (allocation.compute.empty()) return true;
  return allocation.compute.size() == 1 && placement.gpu_ids->size() == 1 &&
         allocation.compute.front() == placement.gpu_ids->front();
}

void refuse_placement(const Refusal& refuse, const PlacementOptions& placement) {
  refuse.when(placement.gpu_ids->size() > 1, placement.gpu_ids.mark, "more than one device in \"gpu_ids\"");
  refuse.when(*placement.mode != Mode::Auto && *placement.mode != Mode::Single, placement.mode.mark,
              fmt::format("\"mode: {}\"", name_of(*placement.mode)), "one device renders: mode: auto or single");
  refuse.when(*placement.replicas > 1, placement.replicas.mark, fmt::format("\"replicas: {}\"", *placement.replicas));
  refuse.when(*placement.split_cfg == AutoBool::True, placement.split_cfg.mark, "\"split_cfg: true\"");
  const Allocation& a = placement.allocation;
  for (const auto* component : {&a.unet, &a.clip, &a.t5xxl, &a.clip_l, &a.clip_g, &a.vae})
    refuse.when(component->given && !is_one_device(**component, placement), component->mark,
                "an allocation other than the one device of \"gpu_ids\"");
}

}  // namespace

void refuse_unsupported(const Job& job) {
  const Refusal refuse(job);
  refuse.when(!job.loras.empty(), job.loras_mark, "\"loras\"");
  for (const auto* type : {&job.dtype.unet, &job.dtype.clip, &job.dtype.vae})
    refuse.when(**type == ComputeType::Fp8, type->mark, "\"dtype: fp8\"", "8-bit weight files are read as they are");
  refuse_placement(refuse, job.placement);
  refuse.when(*job.decode.way == DecodeWay::Parallel, job.decode.way.mark, "\"decode.way: parallel\"");
  refuse.when(*job.decode.way == DecodeWay::Tiled, job.decode.way.mark, "\"decode.way: tiled\"");
}

std::string_view name_of(ComputeType type) {
  switch (type) {
    case ComputeType::Auto:
      return "auto";
    case ComputeType::Fp32:
      return "fp32";
    case ComputeType::Bf16:
      return "bf16";
    case ComputeType::Fp16:
      return "fp16";
    case ComputeType::Fp8:
      return "fp8";
  }
  return "";
}

std::string_view name_of(Mode mode) {
  switch (mode) {
    case Mode::Auto:
      return "auto";
    case Mode::Single:
      return "single";
    case Mode::Shard:
      return "shard";
    case Mode::Tensor:
      return "tensor";
    case Mode::Sequence:
      return "sequence";
    case Mode::Patch:
      return "patch";
    case Mode::Replicate:
      return "replicate";
    case Mode::SplitCfg:
      return "split-cfg";
  }
  return "";
}

}  // namespace mgpu
