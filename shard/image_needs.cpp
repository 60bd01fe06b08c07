#include "shard/image_needs.h"

#include <ATen/ATen.h>

#include "shard/tiny_vae_needs.h"

namespace mgpu {

ComponentNeed image_encoder_need(const Part& vae, at::ScalarType dtype, std::int64_t pixels) {
  if (vae.is_tiny_vae()) return tiny_encoder_need(vae, dtype, pixels);
  constexpr std::uint64_t workspace = std::uint64_t{64} << 20;  // cuDNN's
  Part encoder = vae;
  encoder.prefix += "encoder.";
  const std::uint64_t bytes = loaded_bytes(encoder, dtype);
  const auto levels = static_cast<int>(vae.vae().channels.size());
  // The widest point is a residual block at full resolution: its input, and four tensors of its own; a quarter more for
  // the convolutions' workspace.
  const auto channels = static_cast<std::uint64_t>(vae.vae().channels.front());
  const std::uint64_t activation = static_cast<std::uint64_t>(pixels) * 5 * channels * c10::elementSize(dtype) * 5 / 4;
  return {.name = "vae",
          .phase = Phase::Encode,
          .blocks = {{"encoder level", levels, bytes}},
          .bytes = bytes,
          .activation = activation + workspace,
          .whole = true,
          .activation_on_cpu = activation};
}

}  // namespace mgpu
