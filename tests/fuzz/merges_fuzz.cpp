#include <cstdlib>

#include "core/error.h"
#include "core/text/clip_tokenizer.h"
#include "tests/fuzz/file_of.h"

// Any bytes as CLIP's merges: either a tokenizer comes out, whose ids are those of its vocabulary, or an Error.

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const mgpu::test::FileOf file(data, size);
  try {
    const mgpu::ClipTokenizer tokenizer(file.path());
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const std::string_view words : {std::string_view("a red fox's tail, 20 \xE7\x8B\x90"), text})
      for (const std::int64_t id : tokenizer.encode(words))
        if (id < 0 || id >= tokenizer.vocabulary()) std::abort();
  } catch (const mgpu::Error& e) {
    if (e.code() != mgpu::Exit::Usage) throw;
  }
  return 0;
}
