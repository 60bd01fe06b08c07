#pragma once

#include <string>
#include <string_view>

#include "cli/files/pixels.h"
#include "cli/files/png_chunks.h"

namespace mgpu {

/// How a picture is turned for viewing, as Exif counts: 1, as it lies, to 8. From the PNG's eXIf chunk, else from a
/// "Raw profile type exif" text, else from its XMP text: where Pillow's ImageOps.exif_transpose looks, in this order.
/// 1 where nothing says, or what is said makes no sense.
int orientation_of(const PngChunks& chunks);

/// The orientation that Exif data give, with or without "Exif\0\0" before them; 0 where they give none.
int exif_orientation(std::string_view exif);

/// Whether width and height change places.
inline bool is_turned_aside(int orientation) {
  return orientation >= 5;
}

/// The picture as it is to be viewed: what ImageOps.exif_transpose does.
Rgb8 upright(Rgb8 picture, int orientation);

/// The picture of a PNG file, turned as it is to be viewed. Throws Error (exit 2) that names the file where it is no
/// PNG, or is damaged.
Rgb8 read_upright_png(const std::string& file);

}  // namespace mgpu
