#include "core/text/prompt.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "core/error.h"
#include "core/text/prompt_notes.h"

using namespace mgpu;

namespace {

using Segments = std::vector<Segment>;

/// One token a character, its code.
std::vector<std::int64_t> characters(std::string_view text) {
  return {text.begin(), text.end()};
}

constexpr ChunkRule kTwelve{.start = 1, .end = 2, .pad = 0, .shortest = 12, .longest = 12};

std::vector<std::int64_t> ids(const Chunk& chunk) {
  std::vector<std::int64_t> result;
  for (const Token& token : chunk) result.push_back(token.id);
  return result;
}

}  // namespace

TEST_SUITE_BEGIN("prompt");

TEST_CASE("parentheses multiply by 1.1, a number replaces the weight") {
  CHECK((parse_weights("a cat") == Segments{{"a cat", 1.0}}));
  CHECK(parse_weights("").empty());
  CHECK(parse_weights("()").empty());
  CHECK((parse_weights("a (b) c") == Segments{{"a ", 1.0}, {"b", 1.1}, {" c", 1.0}}));
  CHECK((parse_weights("((a))") == Segments{{"a", 1.1 * 1.1}}));
  CHECK((parse_weights("(a (b:1.5) c:0.8)") == Segments{{"a ", 0.8}, {"b", 1.5}, {" c", 0.8}}));
  CHECK((parse_weights("((a:1.2) b)") == Segments{{"a", 1.2}, {" b", 1.1}}));
  CHECK((parse_weights("(a:-1)(b:.5)(c: 1e-1 )(d:+2)") == Segments{{"a", -1.0}, {"b", 0.5}, {"c", 0.1}, {"d", 2.0}}));
}

TEST_CASE("what is no number is text") {
  CHECK((parse_weights("(at 10:30 o'clock)") == Segments{{"at 10:30 o'clock", 1.1}}));
  CHECK((parse_weights("(a:)") == Segments{{"a:", 1.1}}));
  CHECK((parse_weights("(:1.3)") == Segments{{":1.3", 1.1}}));
  CHECK((parse_weights("(a:nan)(a:inf)(a:+-1)(a:0x2)") ==
         Segments{{"a:nan", 1.1}, {"a:inf", 1.1}, {"a:+-1", 1.1}, {"a:0x2", 1.1}}));
}

TEST_CASE("escaped and unbalanced parentheses are text") {
  CHECK((parse_weights(R"(\(a\))") == Segments{{"(a)", 1.0}}));
  CHECK((parse_weights(R"((a \(b\):1.2))") == Segments{{"a (b)", 1.2}}));
  CHECK((parse_weights(R"(a\b\)") == Segments{{R"(a\b\)", 1.0}}));
  CHECK((parse_weights("(a") == Segments{{"(a", 1.0}}));
  CHECK((parse_weights("((a)") == Segments{{"(a", 1.1}}));
  CHECK((parse_weights("a) (b) c") == Segments{{"a) (b) c", 1.0}}));
  CHECK((parse_weights("(a))(b)") == Segments{{"a", 1.1}, {")(b)", 1.0}}));
}

TEST_CASE("nesting is bounded") {
  const auto nested = [](std::size_t depth) { return std::string(depth, '(') + "a" + std::string(depth, ')'); };
  CHECK(parse_weights(nested(500)).size() == 1);
  CHECK_THROWS_WITH_AS(
      parse_weights(nested(501)),
      "the prompt's parentheses nest deeper than 500\n  write \\( and \\) for parentheses that are no weights", Error);
}

TEST_CASE("a prompt that fits makes one padded chunk") {
  const auto chunks = tokenize("a(b:2)", characters, kTwelve);
  REQUIRE(chunks.size() == 1);
  CHECK(ids(chunks[0]) == std::vector<std::int64_t>{1, 'a', 'b', 2, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK(chunks[0][1].weight == 1.0);
  CHECK(chunks[0][2].weight == 2.0);
  CHECK(chunks[0][3].weight == 1.0);
  CHECK((tokenize("", characters, kTwelve) == std::vector<Chunk>{empty_chunk(kTwelve, 12)}));
}

TEST_CASE("a full chunk needs no second one") {
  CHECK(tokenize("0123456789", characters, kTwelve).size() == 1);
  CHECK(tokenize("0123456789a", characters, kTwelve).size() == 2);
}

TEST_CASE("a segment of seven tokens moves whole, one of eight is cut") {
  const auto moved = tokenize("01234(5678901)", characters, kTwelve);
  REQUIRE(moved.size() == 2);
  CHECK(ids(moved[0]) == std::vector<std::int64_t>{1, '0', '1', '2', '3', '4', 2, 0, 0, 0, 0, 0});
  CHECK(ids(moved[1]) == std::vector<std::int64_t>{1, '5', '6', '7', '8', '9', '0', '1', 2, 0, 0, 0});
  const auto cut = tokenize("01234(56789012)", characters, kTwelve);
  REQUIRE(cut.size() == 2);
  CHECK(ids(cut[0]) == std::vector<std::int64_t>{1, '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 2});
  CHECK(ids(cut[1]) == std::vector<std::int64_t>{1, '0', '1', '2', 2, 0, 0, 0, 0, 0, 0, 0});
}

TEST_CASE("without a longest chunk there is one, padded to the shortest") {
  const ChunkRule rule{.start = {}, .end = 2, .pad = 0, .shortest = 4};
  CHECK(ids(tokenize("a", characters, rule)[0]) == std::vector<std::int64_t>{'a', 2, 0, 0});
  CHECK(tokenize(std::string(1000, 'a'), characters, rule)[0].size() == 1001);
  CHECK(ids(empty_chunk(rule, 5)) == std::vector<std::int64_t>{2, 0, 0, 0, 0});
}

TEST_CASE("BREAK ends a chunk, where the rule says so") {
  ChunkRule rule = kTwelve;
  rule.breaks = true;
  const auto texts = [&](std::string_view prompt) {
    std::vector<std::string> found;
    for (const Chunk& chunk : tokenize(prompt, characters, rule)) {
      CHECK(chunk.size() == 12);
      std::string text;
      for (std::size_t i = 1; chunk[i].id != 2; ++i) text += static_cast<char>(chunk[i].id);
      found.push_back(text);
    }
    return found;
  };
  using Texts = std::vector<std::string>;
  CHECK(texts("a BREAK b") == Texts{"a ", " b"});
  CHECK(texts("a,BREAK,b\nBREAK") == Texts{"a,", ",b\n"});
  CHECK(texts("BREAK b") == Texts{"", " b"});
  CHECK(texts("BREAK") == Texts{""});
  CHECK(texts("a BREAK BREAK b") == Texts{"a ", " ", " b"});
  CHECK(texts("(a BREAK b:1.2)(BREAK)c") == Texts{"a ", " b", "c"});
  CHECK(texts("BREAKS aBREAK BREAK. break") == Texts{"BREAKS aBR", "EAK BREAK.", " break"});
  CHECK(texts("0123456789a BREAK b") == Texts{"0123456789", "a ", " b"});
  rule.breaks = false;
  CHECK(texts("a BREAK b") == Texts{"a BREAK b"});
}

TEST_CASE("a textual inversion takes a place for each of its vectors") {
  std::vector<std::string> asked;
  const FindVectors find = [&](std::string_view name) {
    asked.emplace_back(name);
    return at::arange(6, at::kFloat).view({3, 2});
  };
  const auto chunks = tokenize("a (embedding:x:1.3), embedding:y.pt,b a,embedding:z embedding:", characters,
                               {.start = 1, .end = 2, .pad = 0, .shortest = 12, .longest = 200}, find);
  CHECK(asked == std::vector<std::string>{"x", "y.pt"});
  REQUIRE(chunks.size() == 1);
  CHECK(chunks[0].size() == 1 + 2 + 3 + 2 + 3 + std::string_view(",b a,embedding:z embedding:").size() + 1);
  CHECK(chunks[0][2].id == ' ');
  CHECK(chunks[0][2].vector.defined() == false);
  CHECK(at::equal(chunks[0][4].vector, at::tensor({2.0F, 3.0F})));
  CHECK(chunks[0][4].weight == 1.3);
  CHECK(at::equal(chunks[0][10].vector, at::tensor({4.0F, 5.0F})));
  CHECK(chunks[0][10].weight == 1.0);
  // Three places move whole, as a word does.
  CHECK(tokenize("12345678 embedding:x", characters, kTwelve, find).size() == 2);
  CHECK(embedding_names("a (embedding:x:1.3) BREAK embedding: y,b") == std::vector<std::string>{"x", "y"});
  CHECK(embedding_names("embedding:x,embedding:y [embedding:z] Embedding:w") == std::vector<std::string>{"x"});
  CHECK(ids(tokenize("embedding:", characters, kTwelve)[0]).at(1) == 'e');
}

TEST_CASE("what other programs act on and is read as words is noted, each kind once") {
  const auto kinds = [](std::string_view prompt, bool breaks = true) {
    std::string out;
    for (const PromptNote& note : prompt_notes(prompt, breaks))
      out += fmt::format("{}{}", out.empty() ? "" : " ", note.kind);
    return out;
  };
  CHECK(kinds("a (red:1.2) fox, [the] {snow} <b> a_b x:y, embedding:z, BREAK band, Android") == "");
  CHECK(kinds("<lora:x:0.8> <lora:y> <hypernet:z:1>") == "lora");
  CHECK(kinds("fox AND cat :1.2") == "and");
  CHECK(kinds("[fox:cat:0.5]") == "scheduled");
  CHECK(kinds("[fox|cat] and [the:10]") == "scheduled");
  CHECK(kinds("[the fox: a story]") == "");
  CHECK(kinds("{red|blue} fox") == "choice");
  CHECK(kinds("__animal__, __a/b-c__") == "wildcard");
  CHECK(kinds("snake__case and __init") == "");
  CHECK(kinds("a BREAK b", false) == "break");
  CHECK(kinds("[embedding:x]") == "embedding");
  CHECK(kinds("a,embedding:x") == "embedding");
  CHECK(kinds("EMBEDDING:x") == "embedding");
  CHECK(kinds("(fox:1.2) embedding:") == "embedding");
  CHECK(kinds("<lora:x:1> AND [a|b]") == "lora and scheduled");
  CHECK(kinds("<LoRA:x:1>") == "lora");
  CHECK(kinds("(red:1,2) fox") == "comma");
  CHECK(kinds("(red:1.2, blue), (a: b, 2 c) :( and \\(x") == "");
  CHECK(kinds("(red fox:1.2") == "unclosed");
  CHECK(kinds("a (red (fox:1.2) cat") == "unclosed");
  CHECK(kinds("a smile :) and a (red:1.2) fox") == "unopened");
  CHECK(kinds("a) b) c) and (d) :( (") == "unopened");
  CHECK(kinds("a) b) c) :)") == "");
  CHECK(kinds("(at 10:30)") == "heavy");
  CHECK(prompt_notes("(a fox:16:9)", true).front().text ==
        "\"a fox:16\" has the weight 9: where none is meant, write \\( and \\)");
  CHECK(prompt_notes("a (red fox", true).front().text ==
        "\"(red fox\" is read as words: its \"(\" is not closed; \\( is a parenthesis by itself");
  CHECK(prompt_notes("<lora:" + std::string(300, 'x') + ":1>", true).front().text.size() < 200);
  CHECK(prompt_notes(std::string(100000, '['), true).empty());
}

TEST_SUITE_END();
