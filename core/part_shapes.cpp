#include "core/part_shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#include "core/error.h"
#include "core/quantisation.h"
#include "core/strings.h"

namespace mgpu {
namespace {

/// The number that `text` writes, without leading zeros or anything else.
std::optional<int> number_of(std::string_view text) {
  int number = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (fault != std::errc{} || end != text.data() + text.size() || fmt::format("{}", number) != text)
    return std::nullopt;
  return number;
}

bool any_begins(const TensorMap& tensors, const std::string& begin) {
  const auto it = tensors.lower_bound(begin);
  return it != tensors.end() && it->first.starts_with(begin);
}

/// The numbers of the blocks of a level, given to `use`.
template <class Use>
void each_block(const TensorMap& tensors, const std::string& level, const Use& use) {
  for (auto it = tensors.lower_bound(level); it != tensors.end() && it->first.starts_with(level); ++it) {
    const std::string_view rest = std::string_view(it->first).substr(level.size());
    const std::size_t dot = rest.find('.');
    if (dot == rest.npos) continue;
    if (const std::optional<int> number = number_of(rest.substr(0, dot))) use(*number);
  }
}

}  // namespace

std::string later_block(const TensorFile& file, const std::string& name) {
  const TensorMap& tensors = file.tensors();
  for (std::size_t begin = 0, dot = 0; (dot = name.find('.', begin)) != name.npos; begin = dot + 1) {
    const std::optional<int> number = number_of(std::string_view(name).substr(begin, dot - begin));
    if (!number || any_begins(tensors, name.substr(0, dot + 1))) continue;
    const std::string level = name.substr(0, begin);
    int next = std::numeric_limits<int>::max();
    each_block(tensors, level, [&](int other) {
      if (other > *number) next = std::min(next, other);
    });
    return next == std::numeric_limits<int>::max() ? "" : fmt::format("{}{}", level, next);
  }
  return {};
}

void fail_missing_tensor(const TensorFile& file, const std::string& name, const std::string& hint) {
  const std::string later = later_block(file, name);
  const std::string after = later.empty() ? "" : fmt::format(" ({} is there)", later);
  fail_file(file.path(), fmt::format("tensor {} is missing{}", in_quotes(name), after), hint);
}

bool PartShapes::has(const std::string& name) const {
  return file_.find(prefix_ + name) != nullptr;
}

bool PartShapes::has_any(const std::string& begin) const {
  return any_begins(file_.tensors(), prefix_ + begin);
}

bool PartShapes::claim(const std::string& name) {
  const TensorInfo* info = file_.find(prefix_ + name);
  if (info) tensors_.emplace(prefix_ + name, *info);
  return info != nullptr;
}

int PartShapes::blocks(const std::string& level) const {
  int count = 0;
  each_block(file_.tensors(), prefix_ + level, [&](int number) {
    if (number < std::numeric_limits<int>::max()) count = std::max(count, number + 1);
  });
  return count;
}

int PartShapes::take(const std::string& name, std::size_t rank, std::size_t axis) {
  const Shape& shape = shape_of(name);
  if (shape.size() != rank) fail(name, fmt::format("has shape {}, but {} axes are expected", shape_text(shape), rank));
  if (shape[axis] < 1 || shape[axis] > std::numeric_limits<int>::max())
    fail(name, fmt::format("has shape {}, which no model of this kind has", shape_text(shape)));
  return static_cast<int>(shape[axis]);
}

int PartShapes::take_multiple(const std::string& name, std::size_t rank, std::size_t axis, int unit) {
  const int size = take(name, rank, axis);
  if (size % unit != 0)
    fail(name, fmt::format("has shape {}, but {} is not a multiple of {}", shape_text(shape_of(name)), size, unit));
  return size;
}

void PartShapes::expect(const std::string& name, const Shape& shape) {
  if (shape_of(name) != shape)
    fail(name, fmt::format("has shape {}, but the model's other tensors ask for {}", shape_text(shape_of(name)),
                           shape_text(shape)));
}

void PartShapes::norm(const std::string& name, std::int64_t channels) {
  expect(name + ".weight", {channels});
  expect(name + ".bias", {channels});
}

void PartShapes::linear(const std::string& name, std::int64_t out, std::int64_t in) {
  expect(name + ".weight", {out, in});
  expect(name + ".bias", {out});
}

void PartShapes::conv(const std::string& name, std::int64_t out, std::int64_t in, std::int64_t kernel) {
  expect(name + ".weight", {out, in, kernel, kernel});
  expect(name + ".bias", {out});
}

const PartShapes::Shape& PartShapes::shape_of(const std::string& name) {
  const std::string full = prefix_ + name;
  if (const auto known = shapes_.find(full); known != shapes_.end()) return known->second;
  const TensorInfo* info = file_.find(full);
  if (!info) fail_missing_tensor(file_, full);
  // Throws when it cannot be read. A quantisation that is described is refused by its name, any other by its type.
  StoredWeight stored = stored_weight(file_, full, *info);
  if (!stored.packing && !is_floating(info->dtype))
    fail(name, fmt::format("has type {}: quantised weights of this type are not supported yet", info->type_name()));
  if (const std::string layer(layer_of(full)); !layer.empty())
    for (const std::string_view beside : weight_companions())
      if (const TensorInfo* own = file_.find(layer + std::string(beside)))
        tensors_.emplace(layer + std::string(beside), *own);
  tensors_.emplace(full, *info);
  return shapes_.emplace(full, std::move(stored.shape)).first->second;
}

void PartShapes::fail(const std::string& name, const std::string& what) const {
  fail_file(file_.path(), fmt::format("tensor {} {}", in_quotes(prefix_ + name), what));
}

}  // namespace mgpu
