#include "core/model_set.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace mgpu {
namespace {

bool belongs(const Part& part, std::string_view name) {
  return name.starts_with(part.prefix);
}

bool is_floating(DType dtype) {
  return dtype == DType::F64 || dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16;
}

}  // namespace

ModelSet open_models(const ModelPaths& paths) {
  const auto checkpoint = TensorFile::open(paths.checkpoint);
  const auto part = [&](const std::string& path, Role role) {
    return path.empty() ? find_own_part(checkpoint, role) : find_part(TensorFile::open(path), role);
  };
  ModelSet set{find_part(checkpoint, Role::Diffusion),
               part(paths.clip_l, Role::ClipL),
               part(paths.t5xxl, Role::T5),
               part(paths.vae, Role::Vae),
               paths.clip_tokenizer,
               paths.t5xxl_tokenizer};
  check_set(set.diffusion, set.clip_l, set.t5xxl, set.vae);
  return set;
}

Weights weights_of(const Part& part, at::ScalarType dtype, at::Device device) {
  return {part.file, part.prefix, dtype, device};
}

at::ScalarType stored_type(const Part& part) {
  std::size_t widest = 0;
  at::ScalarType out = at::kBFloat16;
  for (const auto& [name, info] : part.file->tensors()) {
    if (!belongs(part, name) || !is_floating(info.dtype) || size_of(info.dtype) <= widest) continue;
    widest = size_of(info.dtype);
    out = scalar_type(info.dtype);
  }
  return out;
}

std::uint64_t loaded_bytes(const Part& part, at::ScalarType dtype) {
  std::uint64_t total = 0;
  for (const auto& [name, info] : part.file->tensors()) {
    if (!belongs(part, name)) continue;
    const std::uint64_t width = is_floating(info.dtype) ? c10::elementSize(dtype) : size_of(info.dtype);
    total += static_cast<std::uint64_t>(info.count()) * width;
  }
  return total;
}

}  // namespace mgpu
