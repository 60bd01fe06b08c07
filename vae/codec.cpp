#include "vae/codec.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace mgpu {
namespace {

/// `code` of each image by itself, fp32.
template <typename Code>
at::Tensor one_by_one(const at::Tensor& batch, const Code& code) {
  std::vector<at::Tensor> out;
  for (const at::Tensor& one : batch.to(at::kFloat).split(1)) out.push_back(code(one).to(at::kFloat).contiguous());
  return out.size() == 1 ? out.front() : at::cat(out);
}

}  // namespace

at::Tensor decode(const at::Tensor& latent, const LatentFormat& format, const Decoding& decoding) {
  at::ScalarType dtype = at::kFloat;
  const at::Tensor image = one_by_one(latent, [&](const at::Tensor& x) {
    const at::Tensor out = decoding(x / format.scale + format.shift);
    dtype = out.scalar_type();
    return out;
  });
  if (!image.isfinite().all().item<bool>())
    throw Error(Exit::ImageFailed, {}, "the decoded image is not finite",
                dtype == at::kHalf ? "fp16 is too narrow for this VAE: set dtype: {vae: bf16} or {vae: fp32}"
                                   : "look for damage in the VAE file");
  return ((image + 1) / 2).clamp(0.0, 1.0);
}

at::Tensor encode(const at::Tensor& image, const LatentFormat& format, const Encoding& encoding) {
  const at::Tensor latent = one_by_one(image, [&](const at::Tensor& x) { return encoding(x * 2 - 1).mean; });
  return (latent - format.shift) * format.scale;
}

at::Tensor latent_mask(const at::Tensor& mask, std::int64_t height, std::int64_t width) {
  return at::upsample_bilinear2d(mask, {height, width}, /*align_corners=*/false);
}

at::Tensor inpaint_channels(const at::Tensor& image, const at::Tensor& mask, const LatentFormat& format,
                            const Encoding& encoding) {
  constexpr double grey = 0.5;
  const at::Tensor masked = (image - grey) * (1 - mask.round()) + grey;
  const at::Tensor latent = encode(masked, format, encoding);
  return at::cat({latent_mask(mask, latent.size(2), latent.size(3)).round().to(latent.device()), latent}, 1);
}

at::Tensor blank_inpaint_channels(std::int64_t height, std::int64_t width) {
  // ComfyUI's constants (comfy/model_base.py, blank_inpaint_image_like).
  return at::tensor({1.0F, 0.8223F, -0.6876F, 0.6364F, 0.1380F}).reshape({1, 5, 1, 1}).repeat({1, 1, height, width});
}

}  // namespace mgpu
