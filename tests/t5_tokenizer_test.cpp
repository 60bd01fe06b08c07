#include "core/text/t5_tokenizer.h"

#include <doctest/doctest.h>

#include "core/error.h"
#include "tests/token_goldens.h"

using namespace mgpu;

namespace {

using Ids = std::vector<std::int64_t>;

const T5Tokenizer& published() {
  static const T5Tokenizer tokenizer(MGPU_TOKENIZERS "/t5xxl_spiece.model");
  return tokenizer;
}

}  // namespace

TEST_SUITE_BEGIN("t5_tokenizer");

TEST_CASE("awkward prompts give ComfyUI's tokens") {
  check_token_goldens("t5", published(), published().chunks(256));
}

TEST_CASE("added tokens are split off, and no word begins after them") {
  CHECK(published().encode("<extra_id_0>") == Ids{32099});
  CHECK(published().encode("<extra_id_99>") == Ids{32000});
  CHECK(published().encode("</s><pad><unk>") == Ids{1, 0, 2});
  CHECK(published().encode("world") == Ids{296});
  CHECK(published().encode("</s>world") == Ids{1, 7276});
  CHECK(published().encode("</s> world") == Ids{1, 296});
}

TEST_CASE("a grapheme is normalised by its first mark alone, as ComfyUI's tokenizer does it") {
  CHECK(published().encode("e\u0302\u0301") == published().encode("\u00EA"));
  CHECK(published().encode("e\u0302\u0301") != published().encode("\u1EBF"));
}

TEST_CASE("of equal paths the reference's is taken") {
  CHECK(published().encode("a\u2034b") == Ids{3, 9, 17774, 7079, 115});
  CHECK(published().encode("ggggg") == Ids{3, 4102, 4102, 122});
}

TEST_CASE("a file that is no T5 vocabulary is refused") {
  CHECK_THROWS_WITH_AS(T5Tokenizer("/nowhere/spiece.model"),
                       "/nowhere/spiece.model: cannot be read\n  a sentencepiece model is expected here", Error);
  CHECK_THROWS_WITH_AS(
      T5Tokenizer(MGPU_TOKENIZERS "/clip_merges.txt"),
      doctest::Contains("clip_merges.txt: is no T5 vocabulary: its first pieces must be <pad>, </s> and <unk>\n"
                        "  a T5 sentencepiece model (spiece.model) is expected here"),
      Error);
}

TEST_SUITE_END();
