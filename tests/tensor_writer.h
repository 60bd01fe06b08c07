#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace mgpu::test {

/// A folder of its own, removed with all it holds.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string path(const std::string& name) const;
  /// Writes `content` to path(name) and returns that path.
  std::string write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

/// The bytes of a safetensors file with this header text and data section.
std::string safetensors(const std::string& json, const std::string& data);

struct Entry {
  std::string name;
  DType dtype = DType::F32;
  std::vector<std::int64_t> shape;
  std::string data = {};  ///< zeros when empty
};

/// A valid file of these tensors, packed in their order. `metadata` is JSON text for "__metadata__", or "".
std::string safetensors(const std::vector<Entry>& entries, const std::string& metadata = {});

/// The bytes of `values`.
template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace mgpu::test
