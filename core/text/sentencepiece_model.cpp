#include "core/text/sentencepiece_model.h"

#include <cstring>
#include <fstream>
#include <iterator>

#include "core/error.h"

namespace mgpu {
namespace {

constexpr std::uint32_t kLeaf = 1U << 31;    // a unit of the trie that holds a value
constexpr std::uint32_t kHasLeaf = 1U << 8;  // a key ends at this unit

std::uint32_t offset(std::uint32_t unit) {
  return (unit >> 10) << ((unit & (1U << 9)) >> 6);
}

std::uint64_t take_varint(std::string_view& message) {
  std::uint64_t value = 0;
  for (int shift = 0; !message.empty() && shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(message.front());
    message.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

/// Calls `visit` with the number and the bytes of every field of a protobuf message that is no varint. Bytes that are
/// no message give meaningless fields, never more than there is. Format:
/// https://protobuf.dev/programming-guides/encoding
template <class Visit>
void each_field(std::string_view message, const Visit& visit) {
  while (!message.empty()) {
    const std::uint64_t key = take_varint(message);
    if (key % 8 == 0) {
      take_varint(message);
      continue;
    }
    const std::uint64_t length = key % 8 == 1 ? 8 : key % 8 == 2 ? take_varint(message) : key % 8 == 5 ? 4 : 0;
    const std::string_view value = message.substr(0, length);
    message.remove_prefix(value.size());
    visit(key / 8, value);
  }
}

SentencePieceModel::Piece read_piece(std::string_view message) {
  SentencePieceModel::Piece piece;
  each_field(message, [&](std::uint64_t field, std::string_view value) {
    if (field == 1) piece.text = value;
    if (field == 2 && value.size() == sizeof piece.score) std::memcpy(&piece.score, value.data(), sizeof piece.score);
  });
  return piece;
}

}  // namespace

CharacterMap::CharacterMap(std::string_view blob) {
  std::uint32_t bytes = 0;
  if (blob.size() < sizeof bytes) return;
  std::memcpy(&bytes, blob.data(), sizeof bytes);
  blob.remove_prefix(sizeof bytes);
  if (bytes > blob.size()) return;
  trie_.resize(bytes / sizeof(std::uint32_t));
  if (!trie_.empty()) std::memcpy(trie_.data(), blob.data(), trie_.size() * sizeof(std::uint32_t));
  strings_ = blob.substr(bytes);
}

std::optional<std::string_view> CharacterMap::replacement(std::string_view text) const {
  std::uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    node ^= offset(at(node)) ^ byte;
    const std::uint32_t unit = at(node);
    if ((unit & (kLeaf | 0xFF)) != byte) return std::nullopt;
    if ((unit & kHasLeaf) == 0) continue;
    const std::uint32_t value = at(node ^ offset(unit)) & ~kLeaf;
    if (value >= strings_.size()) return std::nullopt;
    const std::string_view rest = std::string_view(strings_).substr(value);
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

SentencePieceModel read_sentencepiece_model(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_file(path, "cannot be read", "a sentencepiece model is expected here");
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  SentencePieceModel model;
  each_field(bytes, [&](std::uint64_t field, std::string_view value) {
    if (field == 1) model.pieces.push_back(read_piece(value));
    if (field != 3) return;
    each_field(value, [&](std::uint64_t inner, std::string_view blob) {
      if (inner == 2) model.map = CharacterMap(blob);
    });
  });
  return model;
}

}  // namespace mgpu
