#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace mgpu {

/// The most pixels of a PNG that is read: those of the largest picture that a job may ask for.
inline constexpr std::uint64_t kMostPngPixels = std::uint64_t{16384} * 16384;

/// What a PNG file holds beside its pixels.
struct PngChunks {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint64_t raw_bytes = 0;              ///< of its pixels before they are compressed, filter bytes included
  std::map<std::string, std::string> text;  ///< UTF-8, whatever the chunk's encoding was; the last of a key
  std::string exif;                         ///< content of its eXIf chunk
};

/// Walks a PNG file's chunks and holds each against its checksum. Pixels are not inflated, text chunks to 16 MB at
/// most. Throws Error (exit 2) that names the file where it is damaged, has more than kMostPngPixels, or claims more
/// pixels than its data can hold.
PngChunks read_png_chunks(std::string_view bytes, const std::string& file);

/// A zlib stream's content. Nothing where the stream is damaged or holds more than `most` bytes.
std::optional<std::string> inflate(std::string_view stream, std::uint64_t most);

}  // namespace mgpu
