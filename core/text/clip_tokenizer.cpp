#include "core/text/clip_tokenizer.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <array>
#include <fstream>
#include <limits>

#include "core/error.h"

namespace mgpu {
namespace {

constexpr std::int64_t kEndsWord = 256;     // added to a byte's id
constexpr std::int64_t kSymbols = 512;      // bytes, and bytes that end a word
constexpr std::size_t kMostMerges = 48894;  // the published file lists more than CLIP was trained with
constexpr std::array<std::string_view, 2> kSpecial = {"<|startoftext|>", "<|endoftext|>"};  // in the order of their ids

std::uint64_t pair_of(std::int64_t left, std::int64_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
}

/// GPT-2's order of bytes: those that Latin-1 prints first, as themselves; the rest after them, written as U+0100 and
/// up.
constexpr bool printable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
}

/// The id of each byte.
constexpr std::array<std::int64_t, 256> byte_ids() {
  std::array<std::int64_t, 256> ids{};
  std::int64_t next = 0;
  for (const bool wanted : {true, false}) {
    for (int byte = 0; byte < 256; ++byte) {
      if (printable(byte) == wanted) ids[static_cast<std::size_t>(byte)] = next++;
    }
  }
  return ids;
}

constexpr std::array<std::int64_t, 256> kByteIds = byte_ids();

/// The 512 symbols as a merges file spells them, with their ids.
std::unordered_map<std::string, std::int64_t> spelled_symbols() {
  std::unordered_map<std::string, std::int64_t> symbols;
  UChar32 substitute = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    std::string spelled;
    icu::UnicodeString(printable(byte) ? byte : substitute++).toUTF8String(spelled);
    const std::int64_t id = kByteIds[static_cast<std::size_t>(byte)];
    symbols[spelled] = id;
    symbols[spelled + "</w>"] = id + kEndsWord;
  }
  return symbols;
}

/// The ideograph blocks that BERT sets apart, compatibility ideographs included.
bool is_ideograph(UChar32 c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/// Text as CLIP's pattern is to see it: clean, composed, lower case, any blank a space.
icu::UnicodeString clean(std::string_view utf8) {
  const icu::UnicodeString raw = icu::UnicodeString::fromUTF8({utf8.data(), static_cast<std::int32_t>(utf8.size())});
  icu::UnicodeString text;
  for (std::int32_t i = 0; i < raw.length(); i = raw.moveIndex32(i, 1)) {
    const UChar32 c = raw.char32At(i);
    if (c == '\t' || c == '\n' || c == '\r' || (U_GET_GC_MASK(c) & U_GC_Z_MASK) != 0) {
      text += static_cast<UChar32>(' ');
    } else if (c == 0xFFFD || (U_GET_GC_MASK(c) & U_GC_C_MASK) != 0) {
      continue;  // zero-width joiners of emoji among them
    } else if (is_ideograph(c)) {
      text.append(static_cast<UChar32>(' ')).append(c).append(static_cast<UChar32>(' '));
    } else {
      text.append(c);
    }
  }
  UErrorCode status = U_ZERO_ERROR;
  text = icu::Normalizer2::getNFCInstance(status)->normalize(text, status);
  MGPU_CHECK(U_SUCCESS(status) != 0, "NFC failed: {}", u_errorName(status));
  return text.toLower(icu::Locale::getRoot());
}

enum class Kind { Blank, Letter, Number, Other };

Kind kind_of(UChar32 c) {
  // The pattern ignores case, and U+0345's upper case is a letter: it is then neither a letter nor anything else.
  if (c == ' ' || c == 0x345) return Kind::Blank;
  if ((U_GET_GC_MASK(c) & U_GC_L_MASK) != 0) return Kind::Letter;
  if ((U_GET_GC_MASK(c) & U_GC_N_MASK) != 0) return Kind::Number;
  return Kind::Other;
}

/// Length of the contraction that starts at `i`, or 0. Long s counts as s: the pattern ignores case.
std::int32_t contraction_at(const icu::UnicodeString& text, std::int32_t i) {
  if (text[i] != '\'') return 0;
  const char16_t first = text[i + 1], second = text[i + 2];  // 0xFFFF past the end
  if (first == 's' || first == 0x17F || first == 't' || first == 'm' || first == 'd') return 2;
  const bool pair =
      (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return pair ? 3 : 0;
}

/// End of the word of CLIP's pattern that starts at `i`; nothing blank stands there.
std::int32_t word_end(const icu::UnicodeString& text, std::int32_t i) {
  for (const std::string_view special : kSpecial) {
    const auto length = static_cast<std::int32_t>(special.size());
    if (text.compare(i, length, icu::UnicodeString(special.data(), length, US_INV)) == 0) return i + length;
  }
  if (const std::int32_t length = contraction_at(text, i)) return i + length;
  const Kind kind = kind_of(text.char32At(i));
  std::int32_t end = text.moveIndex32(i, 1);
  if (kind == Kind::Number) return end;
  while (end < text.length() && kind_of(text.char32At(end)) == kind) end = text.moveIndex32(end, 1);
  return end;
}

}  // namespace

ClipTokenizer::ClipTokenizer(const std::string& merges_path) {
  std::ifstream file(merges_path);
  if (!file) fail_file(merges_path, "cannot be read", "a CLIP merges file is expected here");
  std::unordered_map<std::string, std::int64_t> symbols = spelled_symbols();
  std::string line;
  for (int number = 1; merges_.size() < kMostMerges && std::getline(file, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const std::size_t space = line.find(' ');
    const auto left = symbols.find(line.substr(0, space));
    const auto right = space == std::string::npos ? symbols.end() : symbols.find(line.substr(space + 1));
    if (left == symbols.end() || right == symbols.end()) {
      throw Error(Exit::Usage, {merges_path, number, 1}, fmt::format("\"{}\" does not merge two known symbols", line),
                  "a CLIP merges file has two symbols a line, each a byte or made by a line above");
    }
    const auto id = kSymbols + static_cast<std::int64_t>(merges_.size());
    const std::uint64_t pair = pair_of(left->second, right->second);
    if (!symbols.emplace(left->first + right->first, id).second) {
      throw Error(Exit::Usage, {merges_path, number, 1}, fmt::format("\"{}\" makes a symbol that exists already", line),
                  "every line of a CLIP merges file makes a new symbol");
    }
    merges_.emplace(pair, id);
  }
  if (merges_.empty()) fail_file(merges_path, "holds no merges", "a CLIP merges file is expected here");
}

std::vector<std::int64_t> ClipTokenizer::encode(std::string_view text) const {
  std::vector<std::int64_t> ids;
  while (!text.empty()) {
    std::size_t first = text.size();
    std::size_t which = 0;
    for (std::size_t i = 0; i < kSpecial.size(); ++i) {
      const std::size_t at = text.find(kSpecial[i]);
      if (at < first) first = at, which = i;
    }
    encode_text(text.substr(0, first), ids);
    if (first == text.size()) break;
    ids.push_back(start() + static_cast<std::int64_t>(which));
    text.remove_prefix(first + kSpecial[which].size());
  }
  return ids;
}

void ClipTokenizer::encode_text(std::string_view text, std::vector<std::int64_t>& ids) const {
  const icu::UnicodeString cleaned = clean(text);
  std::int32_t i = 0;
  while (i < cleaned.length()) {
    if (kind_of(cleaned.char32At(i)) == Kind::Blank) {
      ++i;
      continue;
    }
    const std::int32_t end = word_end(cleaned, i);
    std::string word;
    cleaned.tempSubStringBetween(i, end).toUTF8String(word);
    encode_word(word, ids);
    i = end;
  }
}

void ClipTokenizer::encode_word(std::string_view word, std::vector<std::int64_t>& ids) const {
  for (std::size_t i = 0; i < kSpecial.size();
       ++i) {  // spelled in capitals, say: found only once the text is lower case
    if (word == kSpecial[i]) return ids.push_back(start() + static_cast<std::int64_t>(i));
  }
  std::vector<std::int64_t> symbols;
  for (const char c : word) symbols.push_back(kByteIds[static_cast<unsigned char>(c)]);
  symbols.back() += kEndsWord;
  for (;;) {
    // Ids of merges grow with their rank, so that the best merge is the one that makes the smallest id.
    std::int64_t best = std::numeric_limits<std::int64_t>::max();
    std::uint64_t best_pair = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto merge = merges_.find(pair_of(symbols[i], symbols[i + 1]));
      if (merge != merges_.end() && merge->second < best) best = merge->second, best_pair = merge->first;
    }
    if (best == std::numeric_limits<std::int64_t>::max()) break;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      const bool merged = i + 1 < symbols.size() && pair_of(symbols[i], symbols[i + 1]) == best_pair;
      symbols[kept++] = merged ? best : symbols[i];
      i += merged ? 1 : 0;
    }
    symbols.resize(kept);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

}  // namespace mgpu
