#pragma once

#include <cstdint>
#include <vector>

namespace at {
class Tensor;
}

namespace mgpu {

/// An 8-bit RGB picture: rows from the top, pixels from the left.
struct Rgb8 {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> pixels;  ///< 3 * width * height
};

/// image [3, H, W] in 0..1 -> 8 bits by truncation of x * 255, as ComfyUI saves; values outside are clamped. Throws
/// Error (exit 1) for a value that is not finite: such a picture is never written.
Rgb8 to_rgb8(const at::Tensor& image);

/// 8 bits as fp32 in 0..1: [1, 3, H, W].
at::Tensor to_tensor(const Rgb8& picture);

}  // namespace mgpu
