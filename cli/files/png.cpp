#include "cli/files/png.h"

#include <fmt/format.h>
#include <lodepng.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "cli/files/orientation.h"
#include "cli/files/png_chunks.h"
#include "core/cancel.h"
#include "core/descriptor.h"
#include "core/error.h"

namespace mgpu {
namespace {

/// lodepng's hook for zlib. Run lengths alone: of filtered photographs they leave no more bytes than a search for
/// matches does, in half its time.
unsigned compress(unsigned char** out, std::size_t* out_size, const unsigned char* in, std::size_t in_size,
                  const LodePNGCompressSettings*) {
  constexpr int kLevel = 1, kWindowBits = 15, kMemoryLevel = 9;
  constexpr unsigned kNoMemory = 83;                    // as lodepng counts its errors
  constexpr std::size_t kPiece = std::size_t{4} << 20;  // between two of which the program may be asked to end
  z_stream stream{};
  if (deflateInit2(&stream, kLevel, Z_DEFLATED, kWindowBits, kMemoryLevel, Z_RLE) != Z_OK) return kNoMemory;
  const std::size_t room = deflateBound(&stream, in_size);
  stream.next_in = const_cast<unsigned char*>(in);
  stream.next_out = *out = static_cast<unsigned char*>(std::malloc(room));  // lodepng frees it
  stream.avail_out = static_cast<uInt>(room);                               // a job's largest picture has 768 MB
  int state = *out ? Z_OK : Z_MEM_ERROR;
  for (std::size_t left = in_size; state == Z_OK && !is_stop_requested();) {
    stream.avail_in = static_cast<uInt>(std::min(left, kPiece));
    left -= stream.avail_in;
    state = deflate(&stream, left == 0 ? Z_FINISH : Z_NO_FLUSH);
  }
  const bool is_done = state == Z_STREAM_END;
  *out_size = stream.total_out;
  deflateEnd(&stream);
  return is_done ? 0 : kNoMemory;
}

/// UTF-8 as Latin-1, or nothing when a character has no place there.
std::optional<std::string> to_latin1(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      result += static_cast<char>(c);
    } else if ((c == 0xC2 || c == 0xC3) && i + 1 < text.size()) {
      const unsigned char next = static_cast<unsigned char>(text[++i]);
      result += static_cast<char>(((c & 0x03) << 6) | (next & 0x3F));
    } else {
      return std::nullopt;
    }
  }
  return result;
}

/// lodepng's hook for inflating: pixels to no more bytes than the header promises, of which the context tells.
unsigned decompress(unsigned char** out, std::size_t* out_size, const unsigned char* in, std::size_t in_size,
                    const LodePNGDecompressSettings* settings) {
  const std::size_t most = settings->max_output_size != 0 ? settings->max_output_size
                                                          : *static_cast<const std::size_t*>(settings->custom_context);
  const auto bytes = inflate({reinterpret_cast<const char*>(in), in_size}, most);
  if (!bytes) return 1;
  *out = static_cast<unsigned char*>(std::malloc(std::max<std::size_t>(bytes->size(), 1)));  // lodepng frees it
  if (!*out) return 1;
  std::memcpy(*out, bytes->data(), bytes->size());
  *out_size = bytes->size();
  return 0;
}

}  // namespace

std::string encode_png(const Rgb8& picture, const PngText& text) {
  MGPU_CHECK_EQ(picture.pixels.size(),
                3 * static_cast<std::size_t>(picture.width) * static_cast<std::size_t>(picture.height));
  lodepng::State state;
  state.info_raw.colortype = LCT_RGB;
  state.info_raw.bitdepth = 8;
  state.info_png.color.colortype = LCT_RGB;
  state.info_png.color.bitdepth = 8;
  state.encoder.auto_convert = 0;
  state.encoder.text_compression = 0;
  state.encoder.filter_strategy = LFS_FOUR;  // of photographs as good as the best of all
  state.encoder.zlibsettings.custom_zlib = compress;
  for (const auto& [key, value] : text) {
    if (const auto latin1 = to_latin1(value)) {
      lodepng_add_text(&state.info_png, key.c_str(), latin1->c_str());
    } else {
      lodepng_add_itext(&state.info_png, key.c_str(), "", "", value.c_str());
    }
  }
  std::vector<unsigned char> bytes;
  const unsigned fault = lodepng::encode(bytes, picture.pixels, static_cast<unsigned>(picture.width),
                                         static_cast<unsigned>(picture.height), state);
  stop_if_requested();
  MGPU_CHECK(fault == 0, "{}", lodepng_error_text(fault));
  return std::string(bytes.begin(), bytes.end());
}

bool is_png(std::string_view bytes) {
  return bytes.starts_with("\x89PNG\r\n\x1a\n");
}

bool begins_as_png(const std::string& path) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  char begin[8] = {};
  return file.is_open() && ::pread(file.get(), begin, sizeof begin, 0) == sizeof begin && is_png({begin, sizeof begin});
}

PngFile decode_png(std::string_view bytes, const std::string& file) {
  PngChunks chunks = read_png_chunks(bytes, file);
  std::size_t raw_bytes = chunks.raw_bytes;
  lodepng::State state;
  state.info_raw.colortype = LCT_RGB;
  state.info_raw.bitdepth = 8;
  state.decoder.ignore_crc = 1;  // they have been checked
  state.decoder.read_text_chunks = 0;
  state.decoder.zlibsettings.custom_zlib = decompress;
  state.decoder.zlibsettings.custom_context = &raw_bytes;
  PngFile result;
  unsigned width = 0;
  unsigned height = 0;
  const unsigned fault = lodepng::decode(result.picture.pixels, width, height, state,
                                         reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  constexpr unsigned kNotInflated = 110;  // as lodepng counts its errors
  if (fault != 0)
    fail_file(file, fmt::format("is no readable PNG: {}",
                                fault == kNotInflated ? "its pixels are damaged" : lodepng_error_text(fault)));
  result.picture.width = static_cast<int>(width);
  result.picture.height = static_cast<int>(height);
  result.orientation = orientation_of(chunks);
  result.text = std::move(chunks.text);
  return result;
}

std::map<std::string, std::string> read_png_text(std::string_view bytes, const std::string& file) {
  return read_png_chunks(bytes, file).text;
}

}  // namespace mgpu
