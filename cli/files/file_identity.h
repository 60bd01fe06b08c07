#pragma once

#include <cstdint>
#include <string>

namespace mgpu {

class TensorFile;  // core/tensor_file.h

/// What a rendered picture's metadata says of a file: enough to know it again without reading its data.
struct FileIdentity {
  std::string name;         ///< base name
  std::uint64_t bytes = 0;  ///< size of the whole file
  std::string sha256;       ///< of a weight file's header; of the whole of any other file

  bool operator==(const FileIdentity&) const = default;
};

/// A weight file by the hash of its header.
FileIdentity identity_of(const TensorFile& file);

/// Any other file by the hash of all that it holds. Throws Error (exit 2) when it cannot be read.
FileIdentity identity_of(const std::string& path);

}  // namespace mgpu
