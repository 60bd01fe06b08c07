#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
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

/// Key and UTF-8 text of PNG text chunks, in the order in which they are written.
using PngText = std::vector<std::pair<std::string, std::string>>;

/// A PNG file's bytes: the same for the same picture and text. Text goes into tEXt when it is Latin-1, else into iTXt,
/// and is never compressed, since readers of generation parameters skip zTXt.
std::string encode_png(const Rgb8& picture, const PngText& text);

struct PngFile {
  Rgb8 picture;
  std::map<std::string, std::string> text;  ///< UTF-8, whatever the chunk's encoding was
  int orientation = 1;                      ///< orientation_of(): `picture` is as the file has it, not turned
};

/// Whether the bytes begin as a PNG file does.
bool is_png(std::string_view bytes);

/// Any PNG as 8-bit RGB: of 16 bits the upper ones, grey in all channels, alpha dropped. Throws Error (exit 2) that
/// names the file when it is damaged or too large (read_png_chunks). Takes at most some 1000 times the file's memory.
PngFile decode_png(std::string_view bytes, const std::string& file);

/// The file's text chunks alone. Errors as decode_png's, but for pixels that are damaged and bear a right checksum.
std::map<std::string, std::string> read_png_text(std::string_view bytes, const std::string& file);

}  // namespace mgpu
