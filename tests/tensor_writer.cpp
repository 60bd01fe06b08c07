#include "tests/tensor_writer.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/strings.h"

namespace mgpu::test {

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "mgpu-test-XXXXXX").string();
  MGPU_CHECK(mkdtemp(name.data()) != nullptr, "no folder like {}", name);
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Folder::path(const std::string& name) const {
  return path_ + "/" + name;
}

std::string Folder::write(const std::string& name, const std::string& content) const {
  std::ofstream(path(name), std::ios::binary) << content;
  return path(name);
}

std::string safetensors(const std::string& json, const std::string& data) {
  std::string length;
  for (int shift = 0; shift < 64; shift += 8)
    length += static_cast<char>(static_cast<std::uint64_t>(json.size()) >> shift & 0xff);
  return length + json + data;
}

std::string safetensors(const std::vector<Entry>& entries, const std::string& metadata) {
  std::string json = metadata.empty() ? "{" : "{\"__metadata__\":" + metadata;
  std::string data;
  for (const Entry& entry : entries) {
    std::size_t bytes = size_of(entry.dtype);
    for (const std::int64_t dim : entry.shape) bytes *= static_cast<std::size_t>(dim);
    MGPU_CHECK(entry.data.empty() || entry.data.size() == bytes, "{} has {} bytes", entry.name, entry.data.size());
    if (json.size() > 1) json += ",";
    json += fmt::format("\"{}\":{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", entry.name,
                        name_of(entry.dtype), shape_text(entry.shape), data.size(), data.size() + bytes);
    data += entry.data.empty() ? std::string(bytes, '\0') : entry.data;
  }
  json += "}";
  json.append((8 - json.size() % 8) % 8, ' ');
  return safetensors(json, data);
}

}  // namespace mgpu::test
