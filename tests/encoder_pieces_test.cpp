#include "core/text/encoder_pieces.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "core/error.h"
#include "core/text/clip_encoder.h"
#include "core/text/clip_tokenizer.h"
#include "core/text/prompt_encoder.h"
#include "core/text/t5_encoder.h"
#include "tests/cpu_pieces.h"
#include "tests/drawn_weights.h"
#include "tests/model_sets.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

using namespace mgpu;

namespace {

using Cut = std::vector<int>;

Weights clip_weights(const char* name, const char* prefix, at::ScalarType dtype = at::kFloat) {
  return Weights(TensorFile::open(golden(name)), prefix, dtype, at::kCPU);
}

Weights clip_l() {
  return clip_weights("text_clip_l.safetensors", "conditioner.embedders.0.transformer.");
}

Weights clip_g() {
  return clip_weights("text_clip_g.safetensors", "conditioner.embedders.1.model.");
}

/// A T5 of three blocks, 32 wide, for the small tokenizer.
Weights t5(const test::Folder& folder, at::ScalarType dtype = at::kFloat) {
  std::vector<test::Entry> entries = {
      test::drawn("shared.weight", {256, 32}),
      test::drawn("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", {32, 2}),
      test::drawn("encoder.final_layer_norm.weight", {32})};
  for (int i = 0; i < 3; ++i) {
    const std::string attention = fmt::format("encoder.block.{}.layer.0.", i);
    const std::string mlp = fmt::format("encoder.block.{}.layer.1.", i);
    for (const char* name : {"q", "k", "v", "o"})
      entries.push_back(test::drawn(fmt::format("{}SelfAttention.{}.weight", attention, name), {32, 32}));
    entries.push_back(test::drawn(attention + "layer_norm.weight", {32}));
    for (const char* name : {"wi_0", "wi_1"})
      entries.push_back(test::drawn(fmt::format("{}DenseReluDense.{}.weight", mlp, name), {64, 32}));
    entries.push_back(test::drawn(mlp + "DenseReluDense.wo.weight", {32, 64}));
    entries.push_back(test::drawn(mlp + "layer_norm.weight", {32}));
  }
  return Weights(TensorFile::open(folder.write("t5.safetensors", test::safetensors(entries))), "", dtype, at::kCPU);
}

bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() == b.defined() && (!a.defined() || at::equal(a, b));
}

/// Prompts' texts have the same bits however the encoder is cut.
void check_cuts(const TextRecipe& recipe, std::size_t index, const Weights& weights, const char* tokenizer,
                const std::vector<std::string>& prompts) {
  const TextualInversions inversions({golden("embeddings")});
  const auto load = [&](const Cut& cut) {
    return test::load_prompt_encoder(recipe, index, weights, golden(tokenizer), inversions, test::cpu_pieces(cut));
  };
  const auto whole = load({3});
  for (const Cut& cut : {Cut{1, 2}, Cut{2, 1}, Cut{1, 1, 1}}) {
    const auto pieces = load(cut);
    for (const std::string& prompt : prompts) {
      CAPTURE(prompt);
      const EncodedText expected = whole->encode(prompt, 0, LocalOps()), found = pieces->encode(prompt, 0, LocalOps());
      CHECK(same(found.hidden, expected.hidden));
      CHECK(same(found.pooled, expected.pooled));
    }
  }
}

/// Plain, weighted, of several chunks, and with vectors in them.
std::vector<std::string> clip_prompts() {
  std::vector<std::string> out;
  for (const char* name : {"text_prompts.safetensors", "text_marks.safetensors"}) {
    const auto file = TensorFile::open(golden(name));
    const auto own = nlohmann::json::parse(file->metadata().at("prompts")).get<std::vector<std::string>>();
    out.insert(out.end(), own.begin(), own.end());
  }
  for (const std::string_view text : {"BREAK", "embedding:", ":1.4)"})
    REQUIRE(std::ranges::any_of(out, [&](const auto& prompt) { return prompt.find(text) != std::string::npos; }));
  return out;
}

/// An encoder that does nothing: where its pieces load and run, and which of them fail.
struct Dummy {
  struct State {
    at::Tensor x;
    std::vector<at::Tensor*> travelling() { return {&x}; }
  };
  void block(int index, State& state, const Ops&) const {
    if (index == failing) throw std::runtime_error("no block");
    state.x += index + 1;
    threads.insert(std::this_thread::get_id());
    states.insert(state.x.data_ptr());
  }
  std::int64_t width() const { return 7; }
  std::vector<at::Tensor*> block_tensors(int) { return {&weight}; }

  int failing = -1;
  at::Tensor weight;
  mutable std::set<std::thread::id> threads;
  mutable std::set<const void*> states;
};

at::Tensor forward(const EncoderInPieces<Dummy>& encoder) {
  const auto begin = [](const Dummy&) { return Dummy::State{at::zeros({1})}; };
  return encoder.forward(
      begin, [](const Dummy&, const Dummy::State& state) { return state.x; }, LocalOps());
}

template <class Encoder>
std::uint64_t block_bytes(Encoder& encoder, int block) {
  std::uint64_t out = 0;
  for (const at::Tensor* tensor : encoder.block_tensors(block)) out += tensor->nbytes();
  return out;
}

std::uint64_t values_below(const Weights& weights, const std::string& level) {
  std::uint64_t out = 0;
  for (const auto& [name, info] : weights.file().tensors())
    if (name.starts_with(weights.prefix() + level)) out += static_cast<std::uint64_t>(info.count());
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("encoder_pieces");

TEST_CASE("CLIP in pieces gives the bits of one piece") {
  check_cuts(kSdxlText, 0, clip_l(), "picture_merges.txt", clip_prompts());
  check_cuts(kSdxlText, 1, clip_g(), "picture_merges.txt", clip_prompts());
  // CLIP-H: the last layer but one, normed.
  check_cuts(kSd2Text, 0, clip_g(), "picture_merges.txt", {"", "a (red:1.3) boat BREAK a lake"});
  check_cuts(kFluxText, 0, clip_l(), "picture_merges.txt", {"a (red:1.3) boat"});
}

TEST_CASE("T5 in pieces gives the bits of one piece, prompts longer than 256 tokens too") {
  const test::Folder folder;
  std::string longer;
  for (int i = 0; i < 60; ++i) longer += "a boat on dark water, ";
  check_cuts(kFluxText, 1, t5(folder), "picture_spiece.model", {"", "a (red:1.3) boat at (night:0.5)", longer});
  check_cuts(kFluxText, 1, t5(folder, at::kBFloat16), "picture_spiece.model", {"a boat"});
}

TEST_CASE("a piece holds its blocks and no more") {
  const test::Folder folder;
  const LocalOps ops;
  const at::Tensor ids = at::ones({1, 8}, at::kLong);
  const HeldBlocks middle({false, true, false});
  const auto check = [&](const auto& encoder, const char* first, const char* second, const char* last) {
    CHECK(encoder.blocks() == 3);
    auto state = typename std::decay_t<decltype(encoder)>::State{};
    CHECK_THROWS_WITH_AS(encoder.embed(ids), doctest::Contains(first), std::logic_error);
    CHECK_THROWS_WITH_AS(encoder.block(2, state, ops), doctest::Contains(second), std::logic_error);
    if constexpr (requires { encoder.finish(state); })
      CHECK_THROWS_WITH_AS(encoder.finish(state), doctest::Contains(last), std::logic_error);
    else
      CHECK_THROWS_WITH_AS(encoder.finish(state, ops), doctest::Contains(last), std::logic_error);
  };
  check(T5Encoder(t5(folder), middle), "T5's first block is not held", "T5's block 2 is not held",
        "T5's last block is not held");
  check(ClipEncoder(clip_l(), {}, middle), "CLIP's first block is not held", "CLIP's block 2 is not held",
        "CLIP's last block is not held");
  CHECK_THROWS_AS(T5Encoder(t5(folder), HeldBlocks::all(2)), std::logic_error);
  CHECK_THROWS_AS(ClipEncoder(clip_g(), {}, HeldBlocks::all(4)), std::logic_error);
}

TEST_CASE("a block's tensors are all that it reads of the file") {
  const test::Folder folder;
  T5Encoder text(t5(folder));
  for (int i = 1; i < 3; ++i)
    CHECK(block_bytes(text, i) == 4 * values_below(t5(folder), fmt::format("encoder.block.{}.", i)));
  CHECK(block_bytes(text, 0) == block_bytes(text, 1));  // its table of positions belongs to the stem
  ClipEncoder l(clip_l(), {}), g(clip_g(), {});
  for (int i = 0; i < 3; ++i) {
    CHECK(block_bytes(l, i) == 4 * values_below(clip_l(), fmt::format("text_model.encoder.layers.{}.", i)));
    CHECK(block_bytes(g, i) == 4 * values_below(clip_g(), fmt::format("transformer.resblocks.{}.", i)));
  }
  T5Encoder part(t5(folder), HeldBlocks({true, false, false}));
  CHECK_THROWS_WITH_AS(part.block_tensors(1), doctest::Contains("T5's block 1 is not held"), std::logic_error);
}

TEST_CASE("a streamed block runs from what is put in its tensors' place") {
  const test::Folder folder;
  const at::Tensor ids = at::arange(8, at::kLong).unsqueeze(0);
  const auto check = [&](auto& streamed, const at::Tensor& expected, const auto& run) {
    std::vector<at::Tensor> own;
    for (at::Tensor* tensor : streamed.block_tensors(1)) {
      own.push_back(*tensor);
      *tensor = at::zeros_like(*tensor);
    }
    CHECK_FALSE(at::equal(run(streamed), expected));
    std::size_t next = 0;
    for (at::Tensor* tensor : streamed.block_tensors(1)) *tensor = own[next++].clone();
    CHECK(at::equal(run(streamed), expected));
  };
  const HeldBlocks held({true, true, true}, {false, true, false});
  const auto run_t5 = [&](const T5Encoder& encoder) { return encoder.forward(ids, LocalOps()); };
  T5Encoder text(t5(folder), held);
  check(text, run_t5(T5Encoder(t5(folder))), run_t5);
  const auto run_clip = [&](const ClipEncoder& encoder) { return encoder.forward(ids, LocalOps()).hidden; };
  ClipEncoder clip(clip_g(), {}, held);
  check(clip, run_clip(ClipEncoder(clip_g(), {})), run_clip);
}

TEST_CASE("pieces load and run on their devices, the state handed over between them") {
  const std::vector<EncoderPiece> pieces = test::cpu_pieces({2, 1, 3});
  std::vector<Dummy*> loaded;
  std::mutex mutex;
  std::set<std::thread::id> loaders;
  const EncoderInPieces<Dummy> encoder(pieces, [&](const EncoderPiece&) {
    auto out = std::make_unique<Dummy>();
    const std::lock_guard lock(mutex);
    loaded.push_back(out.get());
    loaders.insert(std::this_thread::get_id());
    return out;
  });
  CHECK(encoder.width() == 7);
  CHECK(loaders.size() == 3);
  CHECK_FALSE(loaders.contains(std::this_thread::get_id()));
  CHECK(forward(encoder).item<float>() == 1 + 2 + 3 + 4 + 5 + 6);
  std::set<std::thread::id> runners;
  std::set<const void*> states;
  for (const Dummy* piece : loaded) {
    CHECK(piece->threads.size() == 1);
    CHECK(piece->states.size() == 1);
    runners.insert(piece->threads.begin(), piece->threads.end());
    states.insert(piece->states.begin(), piece->states.end());
  }
  CHECK(runners == loaders);
  CHECK(states.size() >= 2);  // a copy may lie where the last but one lay
  T5Encoder::State t5_state;
  CHECK((t5_state.travelling() == std::vector{&t5_state.x, &t5_state.bias}));
  ClipEncoder::State clip_state;
  CHECK((clip_state.travelling() == std::vector{&clip_state.x, &clip_state.hidden}));
}

TEST_CASE("streamed blocks are given away once loaded, and run where their tensors are brought") {
  std::vector<EncoderPiece> pieces = test::cpu_pieces({3, 1});
  pieces[0].held = HeldBlocks({true, true, true, false}, {false, true, true, false});
  std::vector<Dummy*> loaded(2);
  std::vector<int> streamed, brought;
  pieces[0].stream = [&](std::vector<StreamedBlock> blocks) -> RunStreamed {
    for (const StreamedBlock& block : blocks) {
      streamed.push_back(block.index);
      CHECK((block.tensors == std::vector{&loaded[0]->weight}));
    }
    return [&](int block, const std::function<void()>& work) {
      brought.push_back(block);
      work();
    };
  };
  const EncoderInPieces<Dummy> encoder(pieces, [&](const EncoderPiece& piece) {
    auto out = std::make_unique<Dummy>();
    loaded[piece.held.head() ? 1 : 0] = out.get();
    return out;
  });
  CHECK((streamed == std::vector{1, 2}));
  CHECK(forward(encoder).item<float>() == 1 + 2 + 3 + 4);
  CHECK((brought == std::vector{0, 1, 2}));
}

TEST_CASE("a piece that fails to load is reported once all have ended") {
  std::atomic<int> ended = 0;
  const auto load = [&](const EncoderPiece& piece) -> std::unique_ptr<Dummy> {
    if (piece.held.has(1)) throw std::runtime_error("no room");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    ++ended;
    return std::make_unique<Dummy>();
  };
  CHECK_THROWS_WITH_AS(EncoderInPieces<Dummy>(test::cpu_pieces({1, 1, 1}), load), "no room", std::runtime_error);
  CHECK(ended == 2);
}

TEST_CASE("a piece that fails throws to the caller, and the next pass works") {
  Dummy* last = nullptr;
  const EncoderInPieces<Dummy> encoder(test::cpu_pieces({1, 1}), [&](const EncoderPiece& piece) {
    auto out = std::make_unique<Dummy>();
    if (piece.held.head()) last = out.get();
    return out;
  });
  last->failing = 1;
  CHECK_THROWS_WITH_AS(forward(encoder), "no block", std::runtime_error);
  last->failing = -1;
  CHECK(forward(encoder).item<float>() == 3);
}

TEST_SUITE_END();
