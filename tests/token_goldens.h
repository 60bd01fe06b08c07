#pragma once

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/text/prompt.h"

/// The prompts of goldens/tokens.json, made by make_token_goldens.py.
inline const nlohmann::json& token_goldens() {
  static const nlohmann::json goldens = nlohmann::json::parse(std::ifstream(MGPU_GOLDENS "/tokens.json"));
  return goldens;
}

/// A chunk as the goldens keep it: ids without the padding at the end, and runs of equal weights.
inline mgpu::Chunk unpacked(const nlohmann::json& packed, std::int64_t pad) {
  mgpu::Chunk chunk;
  std::size_t next = 0;
  for (const auto& run : packed.at("weights")) {
    for (int i = 0; i < run.at(0).get<int>(); ++i)
      chunk.push_back({packed.at("ids").at(next++).get<std::int64_t>(), run.at(1)});
  }
  chunk.resize(packed.at("length").get<std::size_t>(), {pad});
  return chunk;
}

/// Checks that every prompt of the goldens gives the chunks under `key`.
template <class Tokenizer>
void check_token_goldens(const char* key, const Tokenizer& tokenizer, const mgpu::ChunkRule& rule) {
  REQUIRE(token_goldens().size() >= 200);
  for (const auto& golden : token_goldens()) {
    const auto prompt = golden.at("prompt").get<std::string>();
    std::vector<mgpu::Chunk> expected;
    const nlohmann::json& packed = golden.at(key);
    if (packed.is_array()) {
      for (const auto& chunk : packed) expected.push_back(unpacked(chunk, rule.pad));
    } else {
      expected.push_back(unpacked(packed, rule.pad));
    }
    const auto chunks = mgpu::tokenize(
        prompt, [&](std::string_view text) { return tokenizer.encode(text); }, rule);
    const bool same = chunks == expected;
    CHECK_MESSAGE(same, "prompt ", golden.at("prompt").dump());
  }
}
