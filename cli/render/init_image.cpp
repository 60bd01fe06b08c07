#include "cli/render/init_image.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cli/files/orientation.h"
#include "cli/files/png.h"
#include "core/error.h"
#include "core/read_file.h"

namespace mgpu {
namespace {

Rgb8 read_png(const FileReference& file) {
  const std::string bytes = read_file(file.path);
  if (!is_png(bytes)) fail_file(file.path, "is not a PNG", "convert it: only PNGs are read");
  PngFile png = decode_png(bytes, file.path);
  return upright(std::move(png.picture), png.orientation);
}

/// The middle of a picture [1, C, H, W].
at::Tensor cut(const at::Tensor& picture, std::int64_t height, std::int64_t width) {
  const std::int64_t top = (picture.size(2) - height) / 2, left = (picture.size(3) - width) / 2;
  return picture.narrow(2, top, height).narrow(3, left, width).contiguous();
}

struct PngSize {
  int width = 0;
  int height = 0;

  bool operator==(const PngSize&) const = default;
  std::string text() const { return fmt::format("{}x{}", width, height); }
};

PngShades shades_of(const Rgb8& picture) {
  PngShades out;
  for (std::size_t i = 0; i < picture.pixels.size(); i += 3) {
    out.darkest = std::min(out.darkest, picture.pixels[i]);
    out.brightest = std::max(out.brightest, picture.pixels[i]);
  }
  return out;
}

/// The sizes of a job's PNGs, each read whole once, however many entries name it.
class PngSizes {
 public:
  PngSize of(const FileReference& file) {
    const auto [size, is_new] = known_.try_emplace(file.path);
    if (is_new) {
      const Rgb8 picture = read_png(file);
      size->second = {picture.width, picture.height};
      shades[file.path] = shades_of(picture);
    }
    return size->second;
  }

  std::map<std::string, PngShades> shades;

 private:
  std::map<std::string, PngSize> known_;
};

void check_init_image(const Job& job, ImageJob& image, int multiple, PngSizes& sizes) {
  const Mark& mark = image.init_image.mark;
  const PngSize whole = sizes.of(image.init_image);
  const PngSize fitting{whole.width / multiple * multiple, whole.height / multiple * multiple};
  if (fitting.width == 0 || fitting.height == 0)
    throw job.error(mark, fmt::format("\"init_image\" is {}: too small", whole.text()),
                    fmt::format("the smallest picture is {}x{}", multiple, multiple));
  if (!image.width.given) image.width = {fitting.width, mark, false};
  if (!image.height.given) image.height = {fitting.height, mark, false};
  if (const PngSize wanted{*image.width, *image.height}; wanted != fitting)
    throw job.error(mark, fmt::format("\"init_image\" is {}, and the picture shall be {}", whole.text(), wanted.text()),
                    fmt::format("leave out \"width\" and \"height\" for a picture of {}, or resize \"{}\"",
                                fitting.text(), image.init_image.text));
  if (!image.mask) return;
  if (const PngSize mask = sizes.of(image.mask); mask != whole)
    throw job.error(image.mask.mark, fmt::format("\"mask\" is {}, and its init image {}", mask.text(), whole.text()),
                    fmt::format("make \"{}\" as large as the init image", image.mask.text));
}

}  // namespace

std::map<std::string, PngShades> check_init_images(Job& job, int multiple) {
  PngSizes sizes;
  for (ImageJob& image : job.images) {
    if (image.init_image) check_init_image(job, image, multiple, sizes);
    for (const ConditionOptions& condition : *image.conditions)
      if (condition.mask) sizes.of(condition.mask);
  }
  return std::move(sizes.shades);
}

at::Tensor read_init_image(const ImageJob& image) {
  return cut(to_tensor(read_png(image.init_image)), *image.height, *image.width);
}

at::Tensor read_mask(const FileReference& mask) {
  return to_tensor(read_png(mask)).narrow(1, 0, 1).contiguous();
}

at::Tensor read_cut_mask(const ImageJob& image) {
  return cut(read_mask(image.mask), *image.height, *image.width);
}

}  // namespace mgpu
