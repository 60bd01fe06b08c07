#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/tensor_file.h"

namespace mgpu {

class Descriptor;

/// A tensor file while its header is read. Not through the mapping: a file that is cut meanwhile is then short, and
/// nothing ends in a SIGBUS.
class HeaderSource {
 public:
  /// `file` must outlive this.
  HeaderSource(const Descriptor& file, std::uint64_t size, std::string path)
      : file_(file), size_(size), path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  /// The file's bytes in all.
  std::uint64_t size() const { return size_; }
  /// Up to `size` bytes at `offset`: fewer where the file ends. Throws Error naming the file when it cannot be read.
  std::string read(std::uint64_t offset, std::uint64_t size) const;

 private:
  const Descriptor& file_;
  std::uint64_t size_;
  std::string path_;
};

/// A format of tensor files.
struct TensorReader {
  std::string_view name;  ///< "safetensors"
  /// Whether a file is of this format, by its first bytes: 64 of them, or as many as it has.
  bool (*knows)(std::string_view head);
  /// Reads and checks the header alone. Throws Error as TensorFile::open does.
  TensorFileHeader (*parse)(const HeaderSource& source);
};

/// All formats, in the order in which they are tried. What none of them knows is refused by core/file_format.h.
std::span<const TensorReader> tensor_readers();

}  // namespace mgpu
