#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "cli/files/orientation.h"
#include "cli/files/png.h"
#include "cli/files/png_chunks.h"
#include "core/error.h"

// Any bytes as a PNG, or, behind another first byte, as the contents of chunks that are put into a PNG with the right
// lengths and checksums: either a picture comes out, of the size that it says, or an Error.

namespace {

std::string number(std::uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
  return out;
}

std::string chunk(const std::string& type, const std::string& content) {
  const std::string checked = type + content;
  const uLong sum = ::crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()));
  return number(static_cast<std::uint32_t>(content.size())) + checked + number(static_cast<std::uint32_t>(sum));
}

std::string deflated(const std::string& text) {
  uLong bytes = ::compressBound(text.size());
  std::string out(bytes, '\0');
  ::compress(reinterpret_cast<Bytef*>(out.data()), &bytes, reinterpret_cast<const Bytef*>(text.data()), text.size());
  out.resize(bytes);
  return out;
}

/// The header's 13 bytes, then chunks: a byte for the kind, two for the length, the content.
std::string png_of(std::string input) {
  const auto take = [&](std::size_t bytes) {
    std::string out = input.substr(0, bytes);
    input.erase(0, out.size());
    out.resize(bytes, '\0');
    return out;
  };
  std::string png = "\x89PNG\r\n\x1a\n" + chunk("IHDR", take(13));
  while (!input.empty()) {
    const std::string head = take(3);
    const auto length = static_cast<unsigned char>(head[1]) * 256U + static_cast<unsigned char>(head[2]);
    const std::string content = take(std::min<std::size_t>(length, input.size()));
    constexpr const char* kKinds[] = {"IDAT", "IDAT", "PLTE", "tRNS", "tEXt", "zTXt", "iTXt", "eXIf", "iCCP", "gAMA"};
    const auto kind = static_cast<unsigned char>(head[0]);
    png += chunk(kKinds[kind % std::size(kKinds)], kind % std::size(kKinds) == 1 ? deflated(content) : content);
  }
  return png + chunk("IEND", "");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string input(reinterpret_cast<const char*>(data) + 1, size - 1);
  mgpu::exif_orientation(input);
  const std::string png = data[0] % 2 == 0 ? input : png_of(input);
  try {
    mgpu::read_png_text(png, "fuzz.png");
    const mgpu::PngFile file = mgpu::decode_png(png, "fuzz.png");
    const mgpu::Rgb8 turned = mgpu::upright(file.picture, file.orientation);
    const auto pixels = static_cast<std::size_t>(turned.width) * static_cast<std::size_t>(turned.height);
    if (turned.pixels.size() != 3 * pixels || file.picture.pixels.size() != 3 * pixels) std::abort();
  } catch (const mgpu::Error& e) {
    if (e.code() != mgpu::Exit::Usage) throw;
  }
  return 0;
}
