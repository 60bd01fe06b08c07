#include "core/part_shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "core/error.h"
#include "core/strings.h"

namespace mgpu {
namespace {

bool is_floating(DType dtype) {
  constexpr std::array kFloating{DType::F64, DType::F32, DType::F16, DType::BF16, DType::F8_E4M3, DType::F8_E5M2};
  return std::find(kFloating.begin(), kFloating.end(), dtype) != kFloating.end();
}

}  // namespace

bool PartShapes::has(const std::string& name) const {
  return file_.find(prefix_ + name) != nullptr;
}

int PartShapes::blocks(const std::string& level) const {
  int count = 0;
  for (;; ++count) {
    const std::string block = fmt::format("{}{}{}.", prefix_, level, count);
    const auto it = file_.tensors().lower_bound(block);
    if (it == file_.tensors().end() || !it->first.starts_with(block)) return count;
  }
}

int PartShapes::take(const std::string& name, std::size_t rank, std::size_t axis) const {
  const Shape& shape = shape_of(name);
  if (shape.size() != rank) fail(name, fmt::format("has shape {}, but {} axes are expected", shape_text(shape), rank));
  if (shape[axis] < 1 || shape[axis] > std::numeric_limits<int>::max())
    fail(name, fmt::format("has shape {}, which no model of this kind has", shape_text(shape)));
  return static_cast<int>(shape[axis]);
}

int PartShapes::take_multiple(const std::string& name, std::size_t rank, std::size_t axis, int unit) const {
  const int size = take(name, rank, axis);
  if (size % unit != 0)
    fail(name, fmt::format("has shape {}, but {} is not a multiple of {}", shape_text(shape_of(name)), size, unit));
  return size;
}

void PartShapes::expect(const std::string& name, const Shape& shape) const {
  if (shape_of(name) != shape)
    fail(name, fmt::format("has shape {}, but the model's other tensors ask for {}", shape_text(shape_of(name)),
                           shape_text(shape)));
}

void PartShapes::norm(const std::string& name, std::int64_t channels) const {
  expect(name + ".weight", {channels});
  expect(name + ".bias", {channels});
}

void PartShapes::linear(const std::string& name, std::int64_t out, std::int64_t in) const {
  expect(name + ".weight", {out, in});
  expect(name + ".bias", {out});
}

void PartShapes::conv(const std::string& name, std::int64_t out, std::int64_t in, std::int64_t kernel) const {
  expect(name + ".weight", {out, in, kernel, kernel});
  expect(name + ".bias", {out});
}

const PartShapes::Shape& PartShapes::shape_of(const std::string& name) const {
  const TensorInfo* info = file_.find(prefix_ + name);
  if (!info) fail(name, "is missing");
  if (!is_floating(info->dtype))
    fail(name, fmt::format("has type {}: quantised weights of this type are not supported yet", name_of(info->dtype)));
  return info->shape;
}

void PartShapes::fail(const std::string& name, const std::string& what) const {
  fail_file(file_.path(), fmt::format("tensor {} {}", in_quotes(prefix_ + name), what));
}

}  // namespace mgpu
