#include "cli/files/orientation.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "cli/files/png.h"
#include "core/error.h"
#include "core/read_file.h"

namespace mgpu {
namespace {

constexpr std::uint32_t kOrientationTag = 0x0112;

/// A TIFF structure's numbers, in its byte order.
class Tiff {
 public:
  explicit Tiff(std::string_view bytes) : bytes_(bytes), is_little_(bytes.starts_with("II")) {}

  std::optional<std::uint32_t> number(std::size_t at, std::size_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) return std::nullopt;
    std::uint32_t out = 0;
    for (std::size_t i = 0; i < size; ++i)
      out = out << 8 | static_cast<unsigned char>(bytes_[at + (is_little_ ? size - 1 - i : i)]);
    return out;
  }

 private:
  std::string_view bytes_;
  bool is_little_;
};

/// Bytes of one value of a TIFF field type that holds a whole number, else 0.
std::size_t size_of_type(std::uint32_t type) {
  constexpr std::uint32_t kByte = 1, kShort = 3, kLong = 4;
  return type == kByte ? 1 : type == kShort ? 2 : type == kLong ? 4 : 0;
}

int valid(std::uint32_t orientation) {
  return orientation >= 1 && orientation <= 8 ? static_cast<int>(orientation) : 0;
}

/// The bytes that a "Raw profile type exif" text spells in hex, behind three line ends. "" where it is damaged.
std::string raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  std::string out;
  int half = -1;
  for (const char c : text) {
    if (c == '\n' || c == ' ' || c == '\r' || c == '\t') continue;
    const int digit = c >= '0' && c <= '9'                     ? c - '0'
                      : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                               : -1;
    if (digit < 0) return {};
    if (half >= 0) out += static_cast<char>(half << 4 | digit);
    half = half >= 0 ? -1 : digit;
  }
  return half < 0 ? out : std::string();
}

/// Of tiff:Orientation="6" or <tiff:Orientation>6<.
int xmp_orientation(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (std::size_t at = xmp.find(kName); at != std::string_view::npos; at = xmp.find(kName, at + 1)) {
    std::string_view rest = xmp.substr(at + kName.size());
    const std::size_t before = rest.starts_with("=\"") ? 2 : rest.starts_with(">") ? 1 : 0;
    if (before == 0 || rest.size() == before || rest[before] < '0' || rest[before] > '9') continue;
    return valid(static_cast<std::uint32_t>(rest[before] - '0'));
  }
  return 0;
}

}  // namespace

int exif_orientation(std::string_view exif) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  for (int i = 0; i < 2 && exif.starts_with(kPrefix); ++i) exif.remove_prefix(kPrefix.size());
  if (!exif.starts_with("II") && !exif.starts_with("MM")) return 0;
  const Tiff tiff(exif);
  if (tiff.number(2, 2) != 42U) return 0;
  const auto directory = tiff.number(4, 4);
  const auto count = directory ? tiff.number(*directory, 2) : std::nullopt;
  for (std::size_t i = 0; count && i < *count; ++i) {
    const std::size_t entry = std::size_t{*directory} + 2 + 12 * i;
    const auto tag = tiff.number(entry, 2), type = tiff.number(entry + 2, 2), values = tiff.number(entry + 4, 4);
    if (!values) return 0;
    const std::size_t size = size_of_type(*type);
    if (*tag != kOrientationTag || *values != 1 || size == 0) continue;
    const auto value = tiff.number(entry + 8, size);
    return value ? valid(*value) : 0;
  }
  return 0;
}

int orientation_of(const PngChunks& chunks) {
  const auto text = [&](const char* key) {
    const auto found = chunks.text.find(key);
    return found == chunks.text.end() ? std::string_view() : std::string_view(found->second);
  };
  int said = exif_orientation(chunks.exif.empty() ? raw_profile(text("Raw profile type exif")) : chunks.exif);
  if (said == 0) said = xmp_orientation(text("XML:com.adobe.xmp"));
  return said == 0 ? 1 : said;
}

Rgb8 upright(Rgb8 picture, int orientation) {
  if (orientation < 2 || orientation > 8) return picture;
  const bool is_aside = is_turned_aside(orientation);
  // Pixel (x, y) of what is viewed is (y, x) of the file's where it lies aside, then mirrored.
  const bool mirrors_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirrors_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Rgb8 out{is_aside ? picture.height : picture.width, is_aside ? picture.width : picture.height,
           std::vector<std::uint8_t>(picture.pixels.size())};
  std::uint8_t* to = out.pixels.data();
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      int from_x = is_aside ? y : x, from_y = is_aside ? x : y;
      if (mirrors_x) from_x = picture.width - 1 - from_x;
      if (mirrors_y) from_y = picture.height - 1 - from_y;
      const std::uint8_t* from =
          picture.pixels.data() + 3 * (static_cast<std::size_t>(from_y) * static_cast<std::size_t>(picture.width) +
                                       static_cast<std::size_t>(from_x));
      for (int channel = 0; channel < 3; ++channel) *to++ = from[channel];
    }
  }
  return out;
}

Rgb8 read_upright_png(const std::string& file) {
  const std::string bytes = read_file(file);
  if (!is_png(bytes)) fail_file(file, "is not a PNG", "convert it: only PNGs are read");
  PngFile png = decode_png(bytes, file);
  return upright(std::move(png.picture), png.orientation);
}

}  // namespace mgpu
