#include "cli/files/png_chunks.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace mgpu {
namespace {

constexpr std::string_view kSignature("\x89PNG\r\n\x1a\n", 8);
constexpr std::size_t kChunkFrame = 12;                                    // length, type and checksum
constexpr std::uint64_t kMostText = std::uint64_t{16} << 20;               // bytes of an inflated text
constexpr std::uint64_t kBestRatio = 1032, kRatioSlack = 64 * kBestRatio;  // of deflate: 258 bytes from 2 bits

[[noreturn]] void fail(const std::string& file, const std::string& why) {
  fail_file(file, "is no readable PNG: " + why);
}

std::uint32_t number_at(std::string_view bytes, std::size_t at) {
  std::uint32_t out = 0;
  for (std::size_t i = 0; i < 4; ++i) out = out << 8 | static_cast<unsigned char>(bytes[at + i]);
  return out;
}

std::string from_latin1(std::string_view text) {
  std::string result;
  for (const char byte : text) {
    const auto c = static_cast<unsigned char>(byte);
    if (c < 0x80) {
      result += byte;
    } else {
      result += static_cast<char>(0xC0 | (c >> 6));
      result += static_cast<char>(0x80 | (c & 0x3F));
    }
  }
  return result;
}

/// Bytes of `width` x `height` pixels, each row behind its filter byte.
std::uint64_t bytes_of(std::uint64_t width, std::uint64_t height, std::uint64_t bits) {
  return width == 0 || height == 0 ? 0 : height * (1 + (width * bits + 7) / 8);
}

/// The same of a picture that is sent in Adam7's seven passes.
std::uint64_t interlaced_bytes(std::uint64_t width, std::uint64_t height, std::uint64_t bits) {
  struct Pass {
    std::uint64_t x, y, step_x, step_y;
  };
  constexpr Pass kPasses[] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                              {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
  std::uint64_t sum = 0;
  for (const Pass& pass : kPasses)
    sum += bytes_of((width + pass.step_x - 1 - pass.x) / pass.step_x, (height + pass.step_y - 1 - pass.y) / pass.step_y,
                    bits);
  return sum;
}

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  PngChunks read(std::string_view bytes) {
    if (!bytes.starts_with(kSignature)) fail(file_, "it does not begin as one");
    bytes.remove_prefix(kSignature.size());
    bool is_first = true;
    for (std::string_view type; type != "IEND"; is_first = false) {
      if (bytes.size() < kChunkFrame) fail(file_, "it is cut short");
      const std::size_t length = number_at(bytes, 0);
      if (length > bytes.size() - kChunkFrame) fail(file_, "it is cut short");
      type = bytes.substr(4, 4);
      const auto checked = bytes.substr(4, 4 + length);
      if (sum_of(checked) != number_at(bytes, 8 + length)) fail(file_, "a checksum is wrong");
      if (is_first != (type == "IHDR")) fail(file_, "its header is not where it should be");
      take(type, bytes.substr(8, length));
      bytes.remove_prefix(kChunkFrame + length);
    }
    if (out_.raw_bytes > data_ * kBestRatio + kRatioSlack)
      fail(file_, fmt::format("its {} bytes of data cannot hold {}x{} pixels", data_, out_.width, out_.height));
    return std::move(out_);
  }

 private:
  static std::uint32_t sum_of(std::string_view bytes) {
    uLong sum = ::crc32(0, nullptr, 0);
    while (!bytes.empty()) {
      const std::string_view piece = bytes.substr(0, std::numeric_limits<int>::max());
      sum = ::crc32(sum, reinterpret_cast<const Bytef*>(piece.data()), static_cast<uInt>(piece.size()));
      bytes.remove_prefix(piece.size());
    }
    return static_cast<std::uint32_t>(sum);
  }

  void take(std::string_view type, std::string_view content) {
    if (type == "IHDR") take_header(content);
    if (type == "IDAT") data_ += content.size();
    if (type == "eXIf") out_.exif = content;
    if (type == "tEXt") take_text(content);
    if (type == "zTXt") take_compressed(content);
    if (type == "iTXt") take_international(content);
  }

  void take_header(std::string_view header) {
    if (header.size() != 13) fail(file_, "its header has a wrong length");
    out_.width = number_at(header, 0), out_.height = number_at(header, 4);
    const unsigned depth = static_cast<unsigned char>(header[8]), color = static_cast<unsigned char>(header[9]);
    constexpr unsigned kChannels[] = {1, 0, 3, 1, 2, 0, 4};  // by colour type
    const unsigned channels = color < std::size(kChannels) ? kChannels[color] : 0;
    if (out_.width == 0 || out_.height == 0 || channels == 0 || depth == 0 || depth > 16)
      fail(file_, "its header is damaged");
    if (std::uint64_t{out_.width} * out_.height > kMostPngPixels || std::max(out_.width, out_.height) > kMostPngPixels)
      fail(file_, fmt::format("it has {}x{} pixels, and {} are the most that are read", out_.width, out_.height,
                              kMostPngPixels));
    const bool is_interlaced = header[12] != 0;
    out_.raw_bytes = is_interlaced ? interlaced_bytes(out_.width, out_.height, channels * depth)
                                   : bytes_of(out_.width, out_.height, channels * depth);
  }

  /// Cuts the text before the next NUL off. Nothing where there is none.
  static std::optional<std::string_view> cut(std::string_view& content) {
    const std::size_t end = content.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view text = content.substr(0, end);
    content.remove_prefix(end + 1);
    return text;
  }

  void take_text(std::string_view content) {
    if (const auto key = cut(content)) out_.text[from_latin1(*key)] = from_latin1(content);
  }

  void take_compressed(std::string_view content) {
    const auto key = cut(content);
    if (!key || content.empty() || content[0] != 0) return;
    if (const auto text = inflate(content.substr(1), kMostText)) out_.text[from_latin1(*key)] = from_latin1(*text);
  }

  void take_international(std::string_view content) {
    const auto key = cut(content);
    if (!key || content.size() < 2) return;
    const bool is_compressed = content[0] != 0, is_zlib = content[1] == 0;
    content.remove_prefix(2);
    if (!cut(content) || !cut(content)) return;  // language, translated key
    if (!is_compressed) {
      out_.text[from_latin1(*key)] = content;
    } else if (is_zlib) {
      if (auto text = inflate(content, kMostText)) out_.text[from_latin1(*key)] = std::move(*text);
    }
  }

  const std::string& file_;
  PngChunks out_;
  std::uint64_t data_ = 0;  // compressed bytes of pixels
};

}  // namespace

PngChunks read_png_chunks(std::string_view bytes, const std::string& file) {
  return Reader(file).read(bytes);
}

std::optional<std::string> inflate(std::string_view stream, std::uint64_t most) {
  constexpr std::size_t kStep = std::size_t{1} << 18;
  z_stream state{};
  if (inflateInit(&state) != Z_OK) return std::nullopt;
  std::string out;
  int result = Z_OK;
  while (result == Z_OK && out.size() <= most) {
    if (state.avail_in == 0) {
      const std::string_view piece = stream.substr(0, std::numeric_limits<int>::max());
      state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(piece.data()));
      state.avail_in = static_cast<uInt>(piece.size());
      stream.remove_prefix(piece.size());
    }
    const std::size_t have = out.size();
    out.resize(have + std::max(kStep, have / 2));
    state.next_out = reinterpret_cast<Bytef*>(out.data() + have);
    state.avail_out = static_cast<uInt>(std::min<std::size_t>(out.size() - have, std::numeric_limits<int>::max()));
    const uInt room = state.avail_out;
    result = ::inflate(&state, Z_NO_FLUSH);
    out.resize(have + room - state.avail_out);
    if (result == Z_BUF_ERROR && state.avail_in == 0 && !stream.empty()) result = Z_OK;
  }
  inflateEnd(&state);
  if (result != Z_STREAM_END || out.size() > most) return std::nullopt;
  return out;
}

}  // namespace mgpu
