#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "cli/job/job.h"

namespace mgpu {

/// The pixels of the entry's init image: [1, 3, height, width] fp32 in 0..1 at the picture's size, 8 bits a channel (of
/// 16 the upper ones), alpha dropped, turned as its Exif orientation says, as ComfyUI's LoadImage reads it. What the
/// image has more than the picture is cut off in equal parts on both sides, as ComfyUI's VAEEncode does.
at::Tensor read_init_image(const ImageJob& image);

/// A mask, whole, at its own size and turned likewise: [1, 1, H, W] fp32 in 0..1, from the red channel (which in a grey
/// picture is its grey), as ComfyUI's LoadImageMask reads it with channel "red".
at::Tensor read_mask(const FileReference& mask);

/// The entry's mask, cut as its init image: [1, 1, height, width], as ComfyUI's InpaintModelConditioning does.
at::Tensor read_cut_mask(const ImageJob& image);

}  // namespace mgpu
