#include "cli/files/orientation.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

using namespace mgpu;

namespace {

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int value : values) out += static_cast<char>(value);
  return out;
}

/// Exif data with one field: the orientation.
std::string exif(int value) {
  return bytes({'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, value, 0, 0, 0, 0, 0, 0});
}

std::string hex(const std::string& text) {
  std::string out;
  for (const char c : text) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

/// A picture of one row per text, each letter a pixel.
Rgb8 picture(std::initializer_list<std::string> rows) {
  Rgb8 out{static_cast<int>(rows.begin()->size()), static_cast<int>(rows.size()), {}};
  for (const std::string& row : rows)
    for (const char c : row) out.pixels.insert(out.pixels.end(), 3, static_cast<std::uint8_t>(c));
  return out;
}

std::string text_of(const Rgb8& shown) {
  std::string out;
  for (int y = 0; y < shown.height; ++y) {
    for (int x = 0; x < shown.width; ++x)
      out += static_cast<char>(shown.pixels[3 * static_cast<std::size_t>(y * shown.width + x)]);
    out += ' ';
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("orientation");

// What ImageOps.exif_transpose of Pillow 13.0 makes of it.
TEST_CASE("a picture is turned in eight ways") {
  const Rgb8 abc = picture({"abc", "def"});
  const std::string shown[] = {"abc def ",  "cba fed ",  "fed cba ",  "def abc ",
                               "ad be cf ", "da eb fc ", "fc eb da ", "cf be ad "};
  for (int i = 1; i <= 8; ++i) CHECK(text_of(upright(abc, i)) == shown[i - 1]);
  for (const int other : {-1, 0, 9}) CHECK(text_of(upright(abc, other)) == "abc def ");
}

TEST_CASE("the orientation of Exif data, in both byte orders") {
  for (int i = 1; i <= 8; ++i) CHECK(exif_orientation(exif(i)) == i);
  CHECK(exif_orientation(exif(0)) == 0);
  CHECK(exif_orientation(exif(9)) == 0);
  CHECK(exif_orientation(std::string("Exif\0\0", 6) + exif(6)) == 6);
  CHECK(exif_orientation(bytes({'I', 'I', 42, 0, 10, 0, 0,    0, 9, 9, 2, 0, 1, 1, 3, 0, 1, 0,
                                0,   0,   7,  0, 0,  0, 0x12, 1, 4, 0, 1, 0, 0, 0, 8, 0, 0, 0})) == 8);
  for (std::size_t length = 0; length < exif(6).size(); ++length) {
    const int said = exif_orientation(exif(6).substr(0, length));
    CHECK(said == (length < 20 ? 0 : 6));
  }
  CHECK(exif_orientation(bytes({'M', 'M', 0, 42, 255, 255, 255, 255, 0, 1})) == 0);
  CHECK(exif_orientation(bytes({'M', 'M', 0, 42, 0, 0, 0, 8, 255, 255})) == 0);
}

TEST_CASE("where an orientation is looked for, in Pillow's order") {
  PngChunks chunks;
  CHECK(orientation_of(chunks) == 1);
  chunks.text["XML:com.adobe.xmp"] = "<x tiff:Orientation=\"3\"/>";
  CHECK(orientation_of(chunks) == 3);
  chunks.text["XML:com.adobe.xmp"] = "<tiff:Orientation>4</tiff:Orientation>";
  CHECK(orientation_of(chunks) == 4);
  chunks.text["Raw profile type exif"] = "\nexif\n      26\n" + hex(exif(5)).insert(20, "\n") + "\n";
  CHECK(orientation_of(chunks) == 5);
  chunks.text["Raw profile type exif"] = "\nexif\n      26\nno hex";
  CHECK(orientation_of(chunks) == 4);
  chunks.exif = exif(6);
  CHECK(orientation_of(chunks) == 6);
}

TEST_SUITE_END();
