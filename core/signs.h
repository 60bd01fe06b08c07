#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "core/family.h"

/// Signs by which a row of the table of families knows its files.
namespace mgpu::signs {

/// The part has a tensor of that name.
inline Sign has(std::string_view name) {
  return {Sign::Test::Has, name, 0, 0};
}
inline Sign lacks(std::string_view name) {
  return {Sign::Test::Lacks, name, 0, 0};
}
/// The tensor's axis has that size.
inline Sign dim(std::string_view name, std::size_t axis, std::int64_t size) {
  return {Sign::Test::Dim, name, axis, size};
}
/// The tensor's axis has another size.
inline Sign other_dim(std::string_view name, std::size_t axis, std::int64_t size) {
  return {Sign::Test::OtherDim, name, axis, size};
}
/// There are `least` to `most` blocks `level`0., `level`1., ...
inline Sign blocks(std::string_view level, std::int64_t least, std::int64_t most) {
  return {Sign::Test::Blocks, level, 0, least, 0.0, most};
}
/// Some tensor's name ends so.
inline Sign ends(std::string_view name) {
  return {Sign::Test::AnyEndsWith, name, 0, 0};
}
/// The file has a tensor of that whole name.
inline Sign in_file(std::string_view name) {
  return {Sign::Test::InFile, name, 0, 0};
}
inline Sign not_in_file(std::string_view name) {
  return {Sign::Test::NotInFile, name, 0, 0};
}
/// The standard deviation of the tensor's values is above `bound`.
inline Sign spread(std::string_view name, double bound) {
  return {Sign::Test::Spread, name, 0, 0, bound};
}

inline std::vector<Sign> operator+(std::vector<Sign> signs, const std::vector<Sign>& more) {
  signs.insert(signs.end(), more.begin(), more.end());
  return signs;
}

/// A row whose tensors have a supported part's names beside their own.
inline FamilyRow explaining(FamilyRow row) {
  row.explains = true;
  return row;
}

inline constexpr std::string_view kUseSingleFile = "use the original single-file release";

}  // namespace mgpu::signs
