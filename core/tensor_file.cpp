#include "core/tensor_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/descriptor.h"
#include "core/error.h"
#include "core/file_format.h"
#include "core/tensor_reader.h"

namespace mgpu {
namespace {

constexpr std::uint64_t kHeadBytes = 64;  // by which formats are known

/// The file's size, once it is known to be a file that can be mapped.
std::uint64_t regular_size(const Descriptor& file, const std::string& path) {
  if (!file.is_open()) {
    if (errno == ENOENT) fail_file(path, "does not exist");
    fail_file(path, fmt::format("cannot be opened: {}", std::strerror(errno)));
  }
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) fail_file(path, fmt::format("cannot be read: {}", std::strerror(errno)));
  if (S_ISDIR(info.st_mode)) {
    const ForeignFormat folder = foreign_folder(path);
    fail_file(path, folder.what, folder.hint);
  }
  if (!S_ISREG(info.st_mode)) fail_file(path, "is not a regular file");
  return static_cast<std::uint64_t>(info.st_size);
}

/// The header, by the first reader that knows the file.
TensorFileHeader parse_header(const HeaderSource& source) {
  const std::string head = source.read(0, std::min(source.size(), kHeadBytes));
  for (const TensorReader& reader : tensor_readers())
    if (reader.knows(head)) return reader.parse(source);
  const ForeignFormat format = foreign_format(head);
  fail_file(source.path(), format.what, format.hint);
}

}  // namespace

std::int64_t TensorInfo::count() const {
  std::int64_t product = 1;
  for (const std::int64_t dim : shape) product *= dim;
  return product;
}

std::shared_ptr<const TensorFile> TensorFile::open(const std::string& path) {
  const Descriptor descriptor(path, O_RDONLY | O_NONBLOCK);
  const std::uint64_t file_bytes = regular_size(descriptor, path);
  if (file_bytes == 0) fail_file(path, "is empty", "fetch it again");
  // Mapped before the header is read: a file that changes between the two has changed.
  const int kept = ::fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 0);
  if (kept < 0) fail_file(path, fmt::format("cannot be kept open: {}", std::strerror(errno)), "raise ulimit -n");
  auto map = std::make_unique<const MappedFile>(path, kept, file_bytes);

  const std::shared_ptr<TensorFile> file(new TensorFile());
  file->path_ = path;
  file->file_bytes_ = file_bytes;
  file->header_ = parse_header(HeaderSource(descriptor, file_bytes, path));
  file->map_ = std::move(map);
  return file;
}

const TensorInfo* TensorFile::find(std::string_view name) const {
  const auto it = header_.tensors.find(name);
  return it == header_.tensors.end() ? nullptr : &it->second;
}

std::span<const std::byte> TensorFile::bytes(const TensorInfo& info) const {
  return {map_->data() + header_.data_begin + info.begin, info.bytes()};
}

void TensorFile::prefetch(const TensorInfo& info) const {
  const std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = (header_.data_begin + info.begin) / page * page;
  const std::uint64_t end = header_.data_begin + info.end;
  // A hint: where the kernel does not take it, the pages are read when they are touched.
  if (end > begin) ::madvise(const_cast<std::byte*>(map_->data()) + begin, end - begin, MADV_WILLNEED);
}

}  // namespace mgpu
