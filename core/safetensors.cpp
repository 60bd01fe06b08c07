#include "core/safetensors.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/sha256.h"

namespace mgpu {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;  // as the reference implementation

/// `head` has 8 bytes at least.
std::uint64_t header_length(std::string_view head) {
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(head[i]);
  return length;
}

/// The header's JSON text.
std::string read_header(const HeaderSource& source) {
  const std::string head = source.read(0, 8);
  if (head.size() < 8) fail_file(source.path(), "became shorter while it was read");
  const std::uint64_t length = header_length(head);
  if (length > kMaxHeader)
    fail_file(source.path(),
              fmt::format("has a header of {} bytes, more than the {} that are allowed", length, kMaxHeader),
              "the file is damaged: fetch it again");
  if (length > source.size() - 8)
    fail_file(source.path(),
              fmt::format("is cut short: its header takes {} bytes, the file has {}", length + 8, source.size()),
              "fetch it again");
  std::string header = source.read(8, length);
  if (header.size() != length) fail_file(source.path(), "became shorter while it was read");
  return header;
}

}  // namespace

bool is_safetensors(std::string_view head) {
  if (head.size() < 9 || head[8] != '{') return false;
  const bool is_text = head[0] == '{' || head[0] == '<';
  return !is_text || header_length(head) <= kMaxHeader;
}

TensorFileHeader parse_safetensors(const HeaderSource& source) {
  const std::string json = read_header(source);
  TensorFileHeader out{.data_begin = 8 + json.size(), .sha256 = sha256_hex(json)};
  TensorHeader header = parse_tensor_header(json, source.size() - out.data_begin, source.path());
  out.tensors = std::move(header.tensors);
  out.metadata = std::move(header.metadata);
  return out;
}

}  // namespace mgpu
