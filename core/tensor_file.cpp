#include "core/tensor_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/descriptor.h"
#include "core/error.h"
#include "core/file_format.h"
#include "core/sha256.h"

namespace mgpu {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;  // as the reference implementation

/// Up to `size` bytes at `offset`. Not through the mapping, so that a file cut while we look at it is short, not a
/// SIGBUS.
std::string read_at(const Descriptor& file, std::uint64_t offset, std::size_t size, const std::string& path) {
  std::string bytes(size, '\0');
  std::size_t have = 0;
  while (have < size) {
    const ssize_t got = ::pread(file.get(), bytes.data() + have, size - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_file(path, fmt::format("cannot be read: {}", std::strerror(errno)));
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

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

/// The header's JSON text.
std::string read_header(const Descriptor& file, std::uint64_t file_bytes, const std::string& path) {
  const std::string head = read_at(file, 0, static_cast<std::size_t>(std::min<std::uint64_t>(file_bytes, 64)), path);
  // A safetensors file begins with the header's length in 8 bytes, little-endian, then the header.
  if (head.size() < 9 || head[8] != '{') {
    const ForeignFormat format = foreign_format(head);
    fail_file(path, format.what, format.hint);
  }
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(head[i]);
  if (length > kMaxHeader) {
    if (head[0] == '{' || head[0] == '<') fail_file(path, foreign_format(head).what, foreign_format(head).hint);
    fail_file(path, fmt::format("has a header of {} bytes, more than the {} that are allowed", length, kMaxHeader),
              "the file is damaged: fetch it again");
  }
  if (length > file_bytes - 8)
    fail_file(path, fmt::format("is cut short: its header takes {} bytes, the file has {}", length + 8, file_bytes),
              "fetch it again");
  std::string header = read_at(file, 8, static_cast<std::size_t>(length), path);
  if (header.size() != length) fail_file(path, "became shorter while it was read");
  return header;
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
  const std::string json = read_header(descriptor, file_bytes, path);

  const std::shared_ptr<TensorFile> file(new TensorFile());
  file->path_ = path;
  file->file_bytes_ = file_bytes;
  file->data_begin_ = 8 + json.size();
  file->header_sha256_ = sha256_hex(json);
  TensorHeader header = parse_tensor_header(json, file_bytes - file->data_begin_, path);
  file->tensors_ = std::move(header.tensors);
  file->metadata_ = std::move(header.metadata);
  file->map_ = std::move(map);
  return file;
}

const TensorInfo* TensorFile::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

std::span<const std::byte> TensorFile::bytes(const TensorInfo& info) const {
  return {map_->data() + data_begin_ + info.begin, info.bytes()};
}

void TensorFile::prefetch(const TensorInfo& info) const {
  const std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = (data_begin_ + info.begin) / page * page;
  const std::uint64_t end = data_begin_ + info.end;
  // A hint: where the kernel does not take it, the pages are read when they are touched.
  if (end > begin) ::madvise(const_cast<std::byte*>(map_->data()) + begin, end - begin, MADV_WILLNEED);
}

}  // namespace mgpu
