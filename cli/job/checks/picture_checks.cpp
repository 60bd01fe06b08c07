#include "cli/job/checks/picture_checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/files/orientation.h"

namespace mgpu {
namespace {

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
      const Rgb8 picture = read_upright_png(file.path);
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

}  // namespace mgpu
