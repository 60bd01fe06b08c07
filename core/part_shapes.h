#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor_file.h"

namespace mgpu {

/// Groups of every autoencoder's and UNet's group norms.
inline constexpr int kNormGroups = 32;

/// One part's tensors by their shapes: sizes are taken from them, then the rest are held against those. What is asked
/// for is what the part reads (tensors()); the rest under its prefix is left over. Every function but has(), has_any()
/// and blocks() throws Error naming file and tensor: where it is missing, of another shape, of a type or a quantisation
/// that we do not compute with.
class PartShapes {
 public:
  using Shape = std::vector<std::int64_t>;

  PartShapes(const TensorFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  const TensorFile& file() const { return file_; }
  bool has(const std::string& name) const;
  /// Whether the name of any tensor begins so.
  bool has_any(const std::string& begin) const;
  /// Whether a tensor is there that only some uses of the part read: it counts as read, and whoever needs it asks for
  /// its shape.
  bool claim(const std::string& name);
  /// How many blocks `level`0., `level`1., ... there are when the highest number that a tensor's name has is the last:
  /// a block that lacks is missing, not the end.
  int blocks(const std::string& level) const;

  /// Axes of the tensor.
  std::size_t rank(const std::string& name) { return shape_of(name).size(); }
  /// A size that is read, not expected: `axis` of a tensor of `rank` axes.
  int take(const std::string& name, std::size_t rank, std::size_t axis);
  /// take() that must be a multiple of `unit`.
  int take_multiple(const std::string& name, std::size_t rank, std::size_t axis, int unit);

  void expect(const std::string& name, const Shape& shape);
  void norm(const std::string& name, std::int64_t channels);
  void linear(const std::string& name, std::int64_t out, std::int64_t in);
  void conv(const std::string& name, std::int64_t out, std::int64_t in, std::int64_t kernel);

  /// What was asked for so far, with what belongs to it (a weight's scales), by full names.
  const TensorMap& tensors() const { return tensors_; }
  TensorMap take_tensors() { return std::move(tensors_); }

 private:
  const Shape& shape_of(const std::string& name);
  [[noreturn]] void fail(const std::string& name, const std::string& what) const;

  const TensorFile& file_;
  std::string prefix_;
  TensorMap tensors_;
  std::map<std::string, Shape, std::less<>> shapes_;  ///< of the values of what was asked for
};

/// Where a numbered level in `name` (a full name) lacks the whole block that the name lies in, and has a later one: the
/// name of that ("single_blocks.2"), else "".
std::string later_block(const TensorFile& file, const std::string& name);

/// Throws Error: the tensor `name` (a full name) is missing, with the block that is there after a gap.
[[noreturn]] void fail_missing_tensor(const TensorFile& file, const std::string& name, const std::string& hint = {});

}  // namespace mgpu
