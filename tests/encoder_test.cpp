#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/error.h"
#include "core/text/clip_encoder.h"
#include "core/text/clip_tokenizer.h"
#include "core/text/prompt_encoder.h"
#include "core/text/t5_encoder.h"
#include "tests/cpu_pieces.h"
#include "tests/model_sets.h"
#include "tests/testing.h"

using namespace mgpu;

namespace {

constexpr double kBound = 1e-5;  // of the relative L2 error in fp32

std::shared_ptr<const TensorFile> cases() {
  static const auto file = TensorFile::open(golden("encoders.safetensors"));
  return file;
}

at::Tensor expected(const std::string& name) {
  return read(*cases(), name);
}

Weights weights(const std::string& name, at::ScalarType dtype = at::kFloat, const std::string& prefix = "") {
  return Weights(TensorFile::open(golden(name + ".safetensors")), prefix, dtype, at::kCPU);
}

const ClipTokenizer& clip_tokenizer() {
  static const ClipTokenizer tokenizer(golden("picture_merges.txt"));
  return tokenizer;
}

/// The small CLIP-L, with the end token of its vocabulary.
ClipEncoder clip_l(at::ScalarType dtype = at::kFloat) {
  return ClipEncoder(weights("picture_clip_l", dtype), {.end = clip_tokenizer().end()});
}

std::unique_ptr<PromptEncoder> flux_encoder(std::size_t index) {
  static const TextualInversions none;
  return test::load_prompt_encoder(kFluxText, index, weights(index == 0 ? "picture_clip_l" : "picture_t5xxl"),
                                   golden(index == 0 ? "picture_merges.txt" : "picture_spiece.model"), none,
                                   test::cpu_pieces({2}));
}

}  // namespace

TEST_SUITE_BEGIN("encoder");

TEST_CASE("CLIP-L gives transformers' states") {
  const at::Tensor ids = expected("clip.ids");
  const ClipOutput last = clip_l().forward(ids, LocalOps());
  CHECK(relative_l2(last.hidden, expected("clip.last")) <= kBound);
  CHECK(relative_l2(last.pooled, expected("clip.pooled")) <= kBound);
  const ClipOutput second = clip_l().forward(ids, LocalOps(), {.layer = -2, .norm = false});
  CHECK(relative_l2(second.hidden, expected("clip.second")) <= kBound);
  CHECK(relative_l2(second.pooled, expected("clip.pooled")) <= kBound);
  CHECK(relative_l2(clip_l().forward(ids, LocalOps(), {.layer = -2}).hidden, expected("clip.second_normed")) <= kBound);
}

TEST_CASE("exact GELU, text projection and padding with 0, under another program's key prefix") {
  const Weights under = weights("encoders", at::kFloat, "text_encoders.clip_g.transformer.");
  ClipOptions options{.end = clip_tokenizer().end(), .quick_gelu = false, .project_pooled = true};
  const ClipOutput output =
      ClipEncoder(under, options).forward(expected("clip_g.ids"), LocalOps(), {.layer = -2, .norm = false});
  CHECK(relative_l2(output.hidden, expected("clip_g.second")) <= kBound);
  CHECK(relative_l2(output.pooled, expected("clip_g.projected")) <= kBound);
  options.project_pooled = false;
  CHECK(relative_l2(ClipEncoder(under, options).forward(expected("clip_g.ids"), LocalOps()).pooled,
                    expected("clip_g.pooled")) <= kBound);
}

TEST_CASE("T5 gives transformers' states, at 256 tokens and past them") {
  const T5Encoder encoder(weights("picture_t5xxl"));
  for (const std::string& name : {std::string("t5.short"), std::string("t5.long")}) {
    CAPTURE(name);
    CHECK(relative_l2(encoder.forward(expected(name + ".ids"), LocalOps()), expected(name)) <= kBound);
  }
  CHECK(expected("t5.long.ids").size(1) > 256);
}

TEST_CASE("narrow weights are computed with in fp32") {
  // The files hold fp16 and bf16: kept so, they are widened at use and nothing is rounded on the way.
  const ClipOutput clip = clip_l(at::kHalf).forward(expected("clip.ids"), LocalOps());
  CHECK((clip.hidden.scalar_type() == at::kFloat));
  CHECK(relative_l2(clip.hidden, expected("clip.last")) <= kBound);
  CHECK(relative_l2(clip.pooled, expected("clip.pooled")) <= kBound);
  const at::Tensor t5 =
      T5Encoder(weights("picture_t5xxl", at::kBFloat16)).forward(expected("t5.short.ids"), LocalOps());
  CHECK(relative_l2(t5, expected("t5.short")) <= kBound);
}

TEST_CASE("a weighted prompt, end to end through Flux's recipe") {
  const auto& metadata = cases()->metadata();
  const EncodedText clip = flux_encoder(0)->encode(metadata.at("weighted"), 0, LocalOps());
  CHECK(clip.hidden.size(1) == 2 * 77);
  CHECK(relative_l2(clip.hidden, expected("weighted.clip")) <= kBound);
  CHECK(relative_l2(clip.pooled, expected("weighted.pooled")) <= kBound);
  const EncodedText t5 = flux_encoder(1)->encode(metadata.at("weighted_t5"), 0, LocalOps());
  CHECK(relative_l2(t5.hidden, expected("weighted.t5")) <= kBound);
  const Conditioning conditioning = assemble(kFluxText, std::vector<EncodedText>{clip, t5});
  CHECK(at::equal(conditioning.context, t5.hidden));
  CHECK(at::equal(conditioning.pooled, clip.pooled));
}

TEST_CASE("a weight of 1 keeps a token's bits") {
  const at::Tensor z = at::arange(6, at::kFloat).view({1, 3, 2}) * 0.1, empty = at::full({1, 3, 2}, 1e8f);
  const at::Tensor weighted = apply_weights(z, empty, {{7, 1.0}, {8, 0.0}, {9, 2.0}});
  CHECK(at::equal(weighted.select(1, 0), z.select(1, 0)));
  CHECK(at::equal(weighted.select(1, 1), empty.select(1, 1)));
  CHECK(at::equal(weighted.select(1, 2), (z.select(1, 2) - 1e8f) * 2 + 1e8f));
}

TEST_CASE("padding is attended to, in CLIP only by what follows it") {
  const std::int64_t end = clip_tokenizer().end();
  const auto encode = [&](std::int64_t pad) {
    const at::Tensor ids = at::full({1, 77}, pad, at::kLong);
    ids.narrow(1, 0, 3).copy_(at::tensor({end - 1, std::int64_t{300}, end}));
    return clip_l().forward(ids, LocalOps());
  };
  const ClipOutput a = encode(0), b = encode(5);
  CHECK(at::equal(a.pooled, b.pooled));
  CHECK(relative_l2(a.hidden, b.hidden) > 1e-3);
  const T5Encoder t5(weights("picture_t5xxl"));
  const at::Tensor ids = at::full({1, 8}, 1, at::kLong), padded = at::constant_pad_nd(ids, {0, 1});
  CHECK(relative_l2(t5.forward(padded, LocalOps()).narrow(1, 0, 8), t5.forward(ids, LocalOps())) > 1e-3);
}

TEST_CASE("a vector stands in a token's place") {
  // The vectors are rows of the tables, so that nothing may change.
  const auto check = [](const at::Tensor& table, const auto& forward) {
    const at::Tensor ids = at::arange(3, 80, at::kLong).unsqueeze(0), some = ids.clone();
    some[0][4] = -1;
    some[0][9] = -2;
    CHECK(at::equal(forward(some, at::stack({table[7], table[12]})), forward(ids, at::Tensor())));
    CHECK(relative_l2(forward(some, at::stack({table[12], table[7]})), forward(ids, at::Tensor())) > 1e-3);
  };
  check(weights("picture_clip_l").get("text_model.embeddings.token_embedding.weight"),
        [](const at::Tensor& ids, const at::Tensor& vectors) {
          return clip_l().forward(ids, LocalOps(), {}, vectors).hidden;
        });
  const Weights t5 = weights("picture_t5xxl");
  check(t5.get("shared.weight"), [&](const at::Tensor& ids, const at::Tensor& vectors) {
    return T5Encoder(t5).forward(ids, LocalOps(), vectors);
  });
}

TEST_CASE("what does not belong together is named") {
  const auto message = [](const auto& action) -> std::string {
    try {
      action();
    } catch (const Error& error) {
      return std::string(error.what()).substr(std::string(MGPU_GOLDENS).size() + 1);
    }
    return "accepted";
  };
  CHECK(message([] {
          clip_l().forward(at::full({1, 77}, 49407, at::kLong), LocalOps());
        }) ==
        "picture_clip_l.safetensors: the encoder knows 607 tokens, and its tokenizer gave token 49407\n"
        "  give the tokenizer that belongs to this encoder (tokenizers: in the job)");
  CHECK(message([] { clip_l().forward(expected("clip.ids"), LocalOps(), {.layer = -3}); }) ==
        "picture_clip_l.safetensors: the CLIP encoder has 2 layers, and layer -3 was asked for\n"
        "  a clip_skip that passes the first layer cannot be rendered");
  CHECK(message([] { T5Encoder encoder(weights("picture_clip_l")); }).find("encoder.embed_tokens.weight") !=
        std::string::npos);
}

TEST_SUITE_END();
