#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/error.h"

namespace mgpu {

/// A model file that is not what it was when it was opened (exit 1).
class FileChanged : public Error {
 public:
  /// `how`: "was cut from 8 to 4 bytes".
  FileChanged(const std::string& path, const std::string& how);
};

/// A regular file, mapped read-only, that may be cut or overwritten while it is mapped. Touching a page that the file
/// no longer has raises SIGBUS: a handler, installed with the first mapping, puts zeros in the page's place and marks
/// the file as damaged, so that the reader goes on; check() then throws. A SIGBUS at any other address does what it did
/// before.
class MappedFile {
 public:
  /// Takes over `descriptor`, which stays open, and maps `bytes` of it (more than 0). Throws Error (exit 2) that names
  /// the file when it cannot be mapped.
  MappedFile(std::string path, int descriptor, std::uint64_t bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  std::uint64_t size() const { return bytes_; }

  /// Throws FileChanged when what was read of it may not be what it held when it was opened: a
  /// page could not be read, or its size or time of change is another. A file that was replaced by rename, or removed,
  /// is still the old one here.
  void check() const;

  /// Whether check() would throw, in words: "was cut from 8 to 4 bytes"; "" while all is well.
  std::string damage() const;

  struct Slot;  ///< an entry of the handler's table

 private:
  void unmap();

  std::string path_;
  int descriptor_;
  std::uint64_t bytes_;
  std::int64_t seconds_ = 0, nanoseconds_ = 0;  ///< of the last change, when it was opened
  const std::byte* data_ = nullptr;
  Slot* slot_ = nullptr;
};

}  // namespace mgpu
