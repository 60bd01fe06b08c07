#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/files/pixels.h"

namespace mgpu {

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

/// Whether there is a file that can be read and begins as a PNG does.
bool begins_as_png(const std::string& path);

/// Any PNG as 8-bit RGB: of 16 bits the upper ones, grey in all channels, alpha dropped. Throws Error (exit 2) that
/// names the file when it is damaged or too large (read_png_chunks). Takes at most some 1000 times the file's memory.
PngFile decode_png(std::string_view bytes, const std::string& file);

/// The file's text chunks alone. Errors as decode_png's, but for pixels that are damaged and bear a right checksum.
std::map<std::string, std::string> read_png_text(std::string_view bytes, const std::string& file);

}  // namespace mgpu
