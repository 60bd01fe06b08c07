#include "cli/job/checks/unsupported.h"

#include <fmt/format.h>

#include <algorithm>

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

void refuse_exact(const Job& job, const Refusal& refuse) {
  refuse.when(*job.exact == Exact::False, job.exact.mark, "\"exact: false\"",
              "leave it out: no faster mode that it would open is there yet");
  if (*job.exact != Exact::Portable) return;
  const auto& devices = job.placement.gpu_ids;
  if (const auto gpu = std::ranges::find_if(*devices, &DeviceId::is_cuda); gpu != devices->end())
    throw job.error(devices.mark, fmt::format("\"exact: portable\" is for CPUs, not for \"{}\"", gpu->to_string()),
                    "gpu_ids: [cpu], or exact: true");
}

void refuse_placement(const Refusal& refuse, const PlacementOptions& placement) {
  const Mode mode = *placement.mode;
  refuse.when(mode != Mode::Auto && mode != Mode::Single && mode != Mode::Shard, placement.mode.mark,
              fmt::format("\"mode: {}\"", name_of(mode)), "there are mode: auto, single and shard");
  refuse.when(*placement.replicas > 1, placement.replicas.mark, fmt::format("\"replicas: {}\"", *placement.replicas));
  refuse.when(*placement.split_cfg == AutoBool::True, placement.split_cfg.mark, "\"split_cfg: true\"");
  for (const auto& [name, component] : placement.allocation.all())
    refuse.when(name != "vae" && (*component)->compute.size() > 1, component->mark,
                "a list of devices for one component",
                "an allocation string deals its blocks out: \"cuda:0,50%;cuda:1,50%\"");
}

}  // namespace

void refuse_unsupported(const Job& job) {
  const Refusal refuse(job);
  refuse.when(!job.loras.empty(), job.loras_mark, "\"loras\"");
  for (const auto* type : {&job.dtype.unet, &job.dtype.clip, &job.dtype.vae})
    refuse.when(**type == ComputeType::Fp8, type->mark, "\"dtype: fp8\"", "8-bit weight files are read as they are");
  refuse_exact(job, refuse);
  refuse_placement(refuse, job.placement);
}

}  // namespace mgpu
