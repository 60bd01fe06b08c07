#include "cli/job/job.h"

#include "cli/job/source.h"

namespace mgpu {
std::vector<std::string_view> prompts_of(const ImageJob& image) {
  std::vector<std::string_view> prompts = {image.prompt, image.negative};
  for (const ConditionOptions& condition : *image.conditions) prompts.push_back(condition.prompt);
  return prompts;
}

std::vector<const FileReference*> picture_files(const ImageJob& image) {
  std::vector<const FileReference*> files;
  const auto add = [&](const FileReference& file) {
    if (file) files.push_back(&file);
  };
  add(image.init_image);
  add(image.mask);
  for (const ConditionOptions& condition : *image.conditions) add(condition.mask);
  return files;
}

Error Job::error(const Mark& mark, std::string message, std::string hint) const {
  return source ? source->error(mark, std::move(message), std::move(hint))
                : Error(Exit::Usage, mark, std::move(message), std::move(hint));
}

Mark Job::place_in(const WrittenAllocation& allocation, std::size_t column) const {
  return source ? source->inside(allocation.mark, allocation.text, column) : allocation.mark;
}

std::vector<std::pair<std::string, const Marked<ComponentAllocation>*>> Allocation::all() const {
  std::vector<std::pair<std::string, const Marked<ComponentAllocation>*>> out{{"unet", &unet}, {"clip", &clip}};
  for (const auto& [key, component] : encoders) out.emplace_back(key, &component);
  out.emplace_back("vae", &vae);
  return out;
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
