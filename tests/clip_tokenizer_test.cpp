#include "core/text/clip_tokenizer.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "core/error.h"
#include "tests/token_goldens.h"

using namespace mgpu;

namespace {

using Ids = std::vector<std::int64_t>;

const ClipTokenizer& published() {
  static const ClipTokenizer tokenizer(MGPU_TOKENIZERS "/clip_merges.txt");
  return tokenizer;
}

/// A merges file of these lines that lives as long as this object.
class MergesFile {
 public:
  explicit MergesFile(std::string_view text) { std::ofstream(path_, std::ios::binary) << text; }
  ~MergesFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = (std::filesystem::temp_directory_path() / "mgpu_clip_tokenizer_test.txt").string();
};

}  // namespace

TEST_SUITE_BEGIN("clip_tokenizer");

TEST_CASE("awkward prompts give ComfyUI's tokens") {
  check_token_goldens("clip", published(), published().chunks(published().end()));
}

TEST_CASE("the published merges make CLIP's vocabulary") {
  CHECK(published().start() == 49406);
  CHECK(published().end() == 49407);
  CHECK(published().encode("a photo of a cat") == Ids{320, 1125, 539, 320, 2368});
}

TEST_CASE("a small merges file makes a small vocabulary") {
  const MergesFile file("#version: 0.2\nf o\nfo x</w>\nr e\r\nre d</w>\n");
  const ClipTokenizer tokenizer(file.path());
  CHECK(tokenizer.start() == 516);
  CHECK(tokenizer.end() == 517);
  CHECK(tokenizer.encode("Red FOX fo") == Ids{515, 513, 'f' - '!', 'o' - '!' + 256});
}

TEST_CASE("bytes that are no UTF-8 are dropped") {
  CHECK(published().encode("\xFFred\xC3") == published().encode("red"));
}

TEST_CASE("a bad merges file is refused") {
  CHECK_THROWS_WITH_AS(ClipTokenizer("/nowhere/merges.txt"),
                       "/nowhere/merges.txt: cannot be read\n  a CLIP merges file is expected here", Error);
  const auto message = [](std::string_view text) -> std::string {
    const MergesFile file(text);
    try {
      ClipTokenizer tokenizer(file.path());
    } catch (const Error& error) {
      return std::string(error.what()).substr(file.path().size());
    }
    return "accepted";
  };
  CHECK(message("#version: 0.2\n") == ": holds no merges\n  a CLIP merges file is expected here");
  CHECK(message("a b\nabc d\n") ==
        ":2:1: \"abc d\" does not merge two known symbols\n"
        "  a CLIP merges file has two symbols a line, each a byte or made by a line above");
  CHECK(message("a b\nc\n") ==
        ":2:1: \"c\" does not merge two known symbols\n"
        "  a CLIP merges file has two symbols a line, each a byte or made by a line above");
  CHECK(message("a b\na b\n") ==
        ":2:1: \"a b\" makes a symbol that exists already\n  every line of a CLIP merges file makes a new symbol");
}

TEST_SUITE_END();
