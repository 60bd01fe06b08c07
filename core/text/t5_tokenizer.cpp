#include "core/text/t5_tokenizer.h"

#include <unicode/brkiter.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>

#include "core/error.h"

namespace mgpu {
namespace {

constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581, a word's beginning
constexpr std::int64_t kExtraIds = 100;
constexpr std::int64_t kUnknown = 2;
constexpr double kUnknownPenalty = 10.0;  // below the worst piece's score

/// Length in bytes of the UTF-8 character that `lead` begins.
std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// Replaces a grapheme under 6 bytes as a whole by what its shortest known prefix becomes, so that the second of two
/// marks on a letter is lost, and other ones character by character, so that decomposed Hangul stays so: the
/// reference's way, which the ids depend on.
std::string normalise(std::string_view utf8, const CharacterMap& map) {
  const icu::UnicodeString text = icu::UnicodeString::fromUTF8({utf8.data(), static_cast<std::int32_t>(utf8.size())});
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<icu::BreakIterator> graphemes(
      icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), status));
  MGPU_CHECK(U_SUCCESS(status) != 0, "no grapheme rules: {}", u_errorName(status));
  graphemes->setText(text);
  std::string normal;
  for (std::int32_t begin = 0, end = graphemes->next(); end != icu::BreakIterator::DONE;
       begin = end, end = graphemes->next()) {
    std::string grapheme;
    text.tempSubStringBetween(begin, end).toUTF8String(grapheme);
    const std::optional<std::string_view> whole = grapheme.size() < 6 ? map.replacement(grapheme) : std::nullopt;
    if (whole) {
      normal += *whole;
      continue;
    }
    for (std::string_view rest = grapheme; !rest.empty();) {
      const std::string_view character = rest.substr(0, utf8_length(rest.front()));
      normal += map.replacement(character).value_or(character);
      rest.remove_prefix(character.size());
    }
  }
  return normal;
}

/// Drops blanks at the end, makes every run of spaces one word beginning, and begins a word at the front where `first`
/// asks for it.
std::string mark_words(std::string text, bool first) {
  icu::UnicodeString trimmed = icu::UnicodeString::fromUTF8(text);
  while (!trimmed.isEmpty() && u_isUWhiteSpace(trimmed.char32At(trimmed.length() - 1)))
    trimmed.truncate(trimmed.length() - 1);
  text.clear();
  trimmed.toUTF8String(text);
  std::string marked;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ' ') {
      marked += text[i];
    } else if (i == 0 || text[i - 1] != ' ') {
      marked += kMetaspace;
    }
  }
  return first && !marked.empty() && !marked.starts_with(kMetaspace) ? std::string(kMetaspace) + marked : marked;
}

/// A piece's score as the reference reads it from tokenizer.json: its shortest decimal as an integer, divided by a
/// power of ten, which may miss the last bit. Paths of equal pieces in another order then differ in theirs, and that
/// decides between them.
double read_score(double score) {
  std::array<char, 32> text{};
  const char* end =
      std::to_chars(text.data(), text.data() + text.size(), std::abs(score), std::chars_format::fixed).ptr;
  std::uint64_t digits = 0;
  double power = 1.0;
  bool fraction = false;
  for (const char* c = text.data(); c != end; ++c) {
    if (*c == '.') {
      fraction = true;
      continue;
    }
    digits = digits * 10 + static_cast<std::uint64_t>(*c - '0');
    if (fraction) power *= 10.0;  // exact up to 10^22
  }
  return std::copysign(static_cast<double>(digits) / power, score);
}

/// The added token that `text` begins with, or nothing.
std::string_view added_token(std::string_view text) {
  for (const std::string_view token : {"<pad>", "</s>", "<unk>"}) {
    if (text.starts_with(token)) return token;
  }
  constexpr std::string_view kExtra = "<extra_id_";
  if (!text.starts_with(kExtra)) return {};
  int number = -1;
  const char* digits = text.data() + kExtra.size();
  const char* end = std::from_chars(digits, text.data() + text.size(), number).ptr;
  const std::string_view token = text.substr(0, static_cast<std::size_t>(end - text.data()) + 1);
  return number >= 0 && number < kExtraIds && token == fmt::format("<extra_id_{}>", number) ? token
                                                                                            : std::string_view();
}

}  // namespace

T5Tokenizer::T5Tokenizer(const std::string& model_path) {
  SentencePieceModel model = read_sentencepiece_model(model_path);
  const auto is = [&model](std::size_t id, std::string_view text) {
    return id < model.pieces.size() && model.pieces[id].text == text;
  };
  if (!is(0, "<pad>") || !is(1, "</s>") || !is(2, "<unk>")) {
    fail_file(model_path, "is no T5 vocabulary: its first pieces must be <pad>, </s> and <unk>",
              "a T5 sentencepiece model (spiece.model) is expected here");
  }
  model_pieces_ = static_cast<std::int64_t>(model.pieces.size());
  for (std::int64_t i = kExtraIds; i-- > 0;) model.pieces.push_back({fmt::format("<extra_id_{}>", i), 0.0F});
  map_ = std::move(model.map);
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& [text, score] = model.pieces[id];
    longest_ = std::max(longest_, text.size());
    const double read = read_score(score);
    unknown_score_ = std::min(unknown_score_, read - kUnknownPenalty);
    pieces_.emplace(text, Piece{static_cast<std::int64_t>(id), read});
  }
}

std::vector<std::int64_t> T5Tokenizer::encode(std::string_view text) const {
  std::vector<std::int64_t> ids;
  const auto encode_text = [&](std::size_t begin, std::size_t end) {
    const std::string marked = mark_words(normalise(text.substr(begin, end - begin), map_), begin == 0);
    for (std::size_t word = 0, next = 0; word < marked.size(); word = next) {
      next = std::min(marked.find(kMetaspace, word + 1), marked.size());
      encode_word(std::string_view(marked).substr(word, next - word), ids);
    }
  };
  std::size_t begin = 0;
  for (std::size_t i = text.find('<'); i < text.size(); i = text.find('<', i)) {
    const std::string_view token = added_token(text.substr(i));
    if (token.empty()) {
      ++i;
      continue;
    }
    encode_text(begin, i);
    ids.push_back(pieces_.find(token)->second.id);
    begin = i += token.size();
  }
  encode_text(begin, text.size());
  return ids;
}

void T5Tokenizer::encode_word(std::string_view word, std::vector<std::int64_t>& ids) const {
  struct Best {
    double score = -std::numeric_limits<double>::infinity();
    std::size_t begin = 0;  ///< of the last piece
    std::int64_t id = kUnknown;
  };
  std::vector<Best> best(word.size() + 1);  // by where a path ends
  best[0].score = 0.0;
  // In fp64, and the earlier beginning where two paths are equal: pieces of one letter repeated tie often.
  const auto offer = [&](std::size_t begin, std::size_t end, double score, std::int64_t id) {
    score += best[begin].score;
    if (score > best[end].score) best[end] = {score, begin, id};
  };
  for (std::size_t begin = 0; begin < word.size(); begin += utf8_length(word[begin])) {
    bool known = false;
    const std::size_t character = utf8_length(word[begin]);
    for (std::size_t length = 1; length <= std::min(longest_, word.size() - begin); ++length) {
      const auto piece = pieces_.find(word.substr(begin, length));
      if (piece == pieces_.end()) continue;
      offer(begin, begin + length, piece->second.score, piece->second.id);
      known = known || length == character;
    }
    if (!known) offer(begin, begin + character, unknown_score_, kUnknown);
  }
  const std::size_t first = ids.size();
  for (std::size_t end = word.size(); end > 0; end = best[end].begin) {
    if (best[end].id != kUnknown || ids.size() == first || ids.back() != kUnknown) ids.push_back(best[end].id);
  }
  std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
}

}  // namespace mgpu
