#include "cli/files/file_identity.h"

#include <filesystem>

#include "core/read_file.h"
#include "core/sha256.h"
#include "core/tensor_file.h"

namespace mgpu {

FileIdentity identity_of(const TensorFile& file) {
  return {std::filesystem::path(file.path()).filename().string(), file.file_bytes(), file.header_sha256()};
}

FileIdentity identity_of(const std::string& path) {
  const std::string bytes = read_file(path);
  return {std::filesystem::path(path).filename().string(), bytes.size(), sha256_hex(bytes)};
}

}  // namespace mgpu
