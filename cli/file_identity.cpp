#include "cli/file_identity.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/sha256.h"

namespace mgpu {

FileIdentity identity_of(const TensorFile& file) {
  return {std::filesystem::path(file.path()).filename().string(), file.file_bytes(), file.header_sha256()};
}

FileIdentity identity_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in) fail_file(path, "cannot be read");
  return {std::filesystem::path(path).filename().string(), bytes.size(), sha256_hex(bytes)};
}

}  // namespace mgpu
