#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/mapped_file.h"

namespace mgpu {

class Packing;

/// One tensor's entry in a file's header.
struct TensorInfo {
  DType dtype = DType::F32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< byte offsets into the file's data section
  std::uint64_t end = 0;
  std::string other_type = {};  ///< of DType::Other: the header's name for it
  /// Of a file whose format packs single tensors: how the bytes hold the values of `shape`, dtype being Other. Null:
  /// the bytes are elements of dtype.
  const Packing* packing = nullptr;

  std::uint64_t bytes() const { return end - begin; }
  /// The header's name of its type.
  std::string_view type_name() const { return dtype == DType::Other ? std::string_view(other_type) : name_of(dtype); }
  std::int64_t count() const;  ///< elements; 1 for a scalar (shape [])
};

/// Tensors by their names.
using TensorMap = std::map<std::string, TensorInfo, std::less<>>;

/// Texts by their names.
using TensorMetadata = std::map<std::string, std::string, std::less<>>;

/// A tensor file's header as parsed and held against the file's size, of whatever format (core/tensor_reader.h).
struct TensorFileHeader {
  TensorMap tensors = {};
  TensorMetadata metadata = {};
  std::uint64_t data_begin = 0;  ///< where in the file the data section is, from which tensors count
  std::string sha256 = {};       ///< of the header's bytes, in hex
};

/// A tensor file, mapped read-only: opening it reads and checks the header alone; a tensor's pages are read when its
/// bytes are touched. Formats are rows of tensor_readers(). A file replaced by rename stays as it was for us. Of one
/// that is cut or written in place while it is open any bytes may be read, zeros among them, and check() throws from
/// then on (core/mapped_file.h).
class TensorFile {
 public:
  /// Throws Error (exit 2) that names the file, and the tensor where one is at fault: a missing or short file, a header
  /// over 100 MB, bad JSON, duplicate names, offsets that overlap, leave holes or pass the end, and a
  /// size that does not match shape and type. A pickle, GGUF or other known format is named for what it is.
  static std::shared_ptr<const TensorFile> open(const std::string& path);
  ~TensorFile() = default;
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  const std::string& path() const { return path_; }
  const TensorMap& tensors() const { return header_.tensors; }
  const TensorMetadata& metadata() const { return header_.metadata; }
  std::uint64_t file_bytes() const { return file_bytes_; }

  /// sha256 of the header (of safetensors: its JSON text), in hex: names a weight file in a picture's metadata without
  /// reading its data.
  const std::string& header_sha256() const { return header_.sha256; }

  /// The entry of `name`, or null.
  const TensorInfo* find(std::string_view name) const;

  /// The tensor's bytes, in the mapping: read-only, at whatever alignment the file gives them. Valid while this object
  /// lives.
  std::span<const std::byte> bytes(const TensorInfo& info) const;

  /// Throws FileChanged when the file has changed since it was opened, or could not be read.
  void check() const { map_->check(); }

  /// Asks the system to read the tensor's pages ahead; returns at once.
  void prefetch(const TensorInfo& info) const;

 private:
  TensorFile() = default;

  std::string path_;
  TensorFileHeader header_;
  std::uint64_t file_bytes_ = 0;
  std::unique_ptr<const MappedFile> map_;
};

}  // namespace mgpu
