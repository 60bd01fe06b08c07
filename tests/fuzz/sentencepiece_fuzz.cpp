#include <cstdlib>

#include "core/error.h"
#include "core/text/t5_tokenizer.h"
#include "tests/fuzz/file_of.h"

// Any bytes as a sentencepiece model: either a tokenizer comes out that reads text, or an Error.

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const mgpu::test::FileOf file(data, size);
  const auto pieces = static_cast<std::int64_t>(mgpu::read_sentencepiece_model(file.path()).pieces.size());
  try {
    const mgpu::T5Tokenizer tokenizer(file.path());
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const std::string_view words : {std::string_view("a red  fox</s> <extra_id_3>\xEF\xBC\xA1"), text})
      for (const std::int64_t id : tokenizer.encode(words))
        if (id < 0 || (id >= pieces && id >= 32100)) std::abort();  // the added tokens are 32000 to 32099
  } catch (const mgpu::Error& e) {
    if (e.code() != mgpu::Exit::Usage) throw;
  }
  return 0;
}
