#include "core/tensor_reader.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/descriptor.h"
#include "core/error.h"
#include "core/safetensors.h"

namespace mgpu {

std::string HeaderSource::read(std::uint64_t offset, std::uint64_t size) const {
  std::string bytes(static_cast<std::size_t>(size), '\0');
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got =
        ::pread(file_.get(), bytes.data() + have, bytes.size() - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_file(path_, fmt::format("cannot be read: {}", std::strerror(errno)));
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

std::span<const TensorReader> tensor_readers() {
  static constexpr std::array<TensorReader, 1> kReaders = {{
      {"safetensors", is_safetensors, parse_safetensors},
  }};
  return kReaders;
}

}  // namespace mgpu
