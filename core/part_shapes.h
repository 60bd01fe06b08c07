#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor_file.h"

namespace mgpu {

/// Groups of every autoencoder's and UNet's group norms.
inline constexpr int kNormGroups = 32;

/// One part's tensors by their shapes: sizes are taken from them, then the rest are held against those. Every function
/// but has() and blocks() throws Error naming file and tensor.
class PartShapes {
 public:
  using Shape = std::vector<std::int64_t>;

  PartShapes(const TensorFile& file, const std::string& prefix) : file_(file), prefix_(prefix) {}

  bool has(const std::string& name) const;
  /// How many of `level`0., `level`1., ... begin names of tensors.
  int blocks(const std::string& level) const;

  /// Axes of the tensor.
  std::size_t rank(const std::string& name) const { return shape_of(name).size(); }
  /// A size that is read, not expected: `axis` of a tensor of `rank` axes.
  int take(const std::string& name, std::size_t rank, std::size_t axis) const;
  /// take() that must be a multiple of `unit`.
  int take_multiple(const std::string& name, std::size_t rank, std::size_t axis, int unit) const;

  void expect(const std::string& name, const Shape& shape) const;
  void norm(const std::string& name, std::int64_t channels) const;
  void linear(const std::string& name, std::int64_t out, std::int64_t in) const;
  void conv(const std::string& name, std::int64_t out, std::int64_t in, std::int64_t kernel) const;

 private:
  const Shape& shape_of(const std::string& name) const;
  [[noreturn]] void fail(const std::string& name, const std::string& what) const;

  const TensorFile& file_;
  const std::string& prefix_;
};

}  // namespace mgpu
