#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/text/clip_encoder.h"
#include "core/text/clip_model.h"
#include "core/text/clip_tokenizer.h"
#include "core/text/prompt_encoder.h"
#include "core/text/size_conditioning.h"
#include "tests/cpu_pieces.h"
#include "tests/drawn_weights.h"
#include "tests/model_sets.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

using namespace mgpu;

namespace {

constexpr double kBound = 1e-5;  // of the relative L2 error in fp32

Weights weights(const std::string& name, const std::string& prefix, at::ScalarType dtype = at::kFloat) {
  return Weights(TensorFile::open(golden("text_" + name + ".safetensors")), prefix, dtype, at::kCPU);
}

Weights clip_l() {
  return weights("clip_l", "conditioner.embedders.0.transformer.");
}

Weights clip_g() {
  return weights("clip_g", "conditioner.embedders.1.model.");
}

/// A family's encoders over the small models: CLIP-G's serves as CLIP-H too.
class Family {
 public:
  explicit Family(const TextRecipe& recipe) : recipe_(recipe), inversions_({golden("embeddings")}) {
    for (std::size_t i = 0; i < recipe.encoders.size(); ++i) {
      const bool is_l = recipe.encoders[i].encoder == &kClipL;
      encoders_.push_back(test::load_prompt_encoder(recipe, i, is_l ? clip_l() : clip_g(), golden("picture_merges.txt"),
                                                    inversions_, test::cpu_pieces({3})));
    }
  }

  Conditioning encode(const std::string& prompt, std::int64_t clip_skip = 0) const {
    std::vector<EncodedText> texts;
    for (const auto& encoder : encoders_) texts.push_back(encoder->encode(prompt, clip_skip, LocalOps()));
    return assemble(recipe_, texts);
  }

 private:
  const TextRecipe& recipe_;
  TextualInversions inversions_;
  std::vector<std::unique_ptr<PromptEncoder>> encoders_;
};

std::shared_ptr<const TensorFile> cases() {
  static const auto file = TensorFile::open(golden("text_cases.safetensors"));
  return file;
}

std::vector<std::string> prompts_of(const TensorFile& file, const std::string& key) {
  return nlohmann::json::parse(file.metadata().at(key)).get<std::vector<std::string>>();
}

}  // namespace

TEST_SUITE_BEGIN("text");

TEST_CASE("SDXL and its refiner are told what ComfyUI tells them: plain, weighted, long, BREAK, textual inversions") {
  const Family sdxl(kSdxlText), refiner(kSdxlRefinerText);
  std::size_t count = 0;
  for (const std::string& name : {std::string("text_prompts"), std::string("text_marks")}) {
    const auto file = TensorFile::open(golden(name + ".safetensors"));
    const std::vector<std::string> prompts = prompts_of(*file, "prompts");
    for (std::size_t i = 0; i < prompts.size(); ++i, ++count) {
      CAPTURE(prompts[i]);
      const at::Tensor context = read(*file, fmt::format("{}.context", i));
      const at::Tensor pooled = read(*file, fmt::format("{}.pooled", i));
      const Conditioning base = sdxl.encode(prompts[i]);
      CHECK(relative_l2(base.context, context) <= kBound);
      CHECK(relative_l2(base.pooled, pooled) <= kBound);
      if (prompts[i].find("uneven") != std::string::npos) continue;  // cut to CLIP-L's length, which the refiner lacks
      const Conditioning refined = refiner.encode(prompts[i]);
      CHECK(relative_l2(refined.context, context.narrow(2, 64, 128)) <= kBound);
      CHECK(relative_l2(refined.pooled, pooled) <= kBound);
    }
  }
  CHECK(count >= 20);
}

TEST_CASE("SD 1 takes CLIP-L's last layer normed, SD 2 the last but one normed; neither takes pooled") {
  for (const auto& [name, recipe] : {std::pair{"sd1", &kSd1Text}, std::pair{"sd2", &kSd2Text}}) {
    const Family family(*recipe);
    const std::vector<std::string> prompts = prompts_of(*cases(), name);
    REQUIRE(prompts.size() >= 4);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      CAPTURE(prompts[i]);
      const Conditioning conditioning = family.encode(prompts[i]);
      CHECK(relative_l2(conditioning.context, read(*cases(), fmt::format("{}.{}", name, i))) <= kBound);
      CHECK_FALSE(conditioning.pooled.defined());
    }
  }
}

TEST_CASE("clip_skip moves the layer of every CLIP, counted as A1111 or as ComfyUI counts") {
  const std::string prompt = cases()->metadata().at("skipped");
  const Family sd1(kSd1Text), sdxl(kSdxlText);
  for (const std::int64_t layer : {-1, -3}) {
    for (const std::int64_t clip_skip : {layer, -layer}) {
      CAPTURE(clip_skip);
      CHECK(relative_l2(sd1.encode(prompt, clip_skip).context, read(*cases(), fmt::format("sd1.layer{}", layer))) <=
            kBound);
      const Conditioning conditioning = sdxl.encode(prompt, clip_skip);
      CHECK(relative_l2(conditioning.context, read(*cases(), fmt::format("sdxl.layer{}", layer))) <= kBound);
      CHECK(relative_l2(conditioning.pooled, read(*cases(), "sdxl.pooled")) <= kBound);
    }
  }
  CHECK(at::equal(sdxl.encode(prompt, 2).context, sdxl.encode(prompt).context));
  CHECK(at::equal(sd1.encode(prompt, 1).context, sd1.encode(prompt).context));
  CHECK_THROWS_AS(sd1.encode(prompt, 4), Error);
  CHECK(layer_under(kFluxText.encoders[1], 2) == kFluxText.encoders[1].layer);
}

TEST_CASE("OpenCLIP's layout gives the bits of transformers', in every type") {
  const std::int64_t end = ClipTokenizer(golden("picture_merges.txt")).end();
  const at::Tensor ids = at::randint(0, end, {2, 77}, at::detail::createCPUGenerator(5), at::kLong);
  ids.select(1, 60).fill_(end);
  const ClipOptions options{.end = end, .quick_gelu = true, .project_pooled = true};
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const ClipEncoder theirs(weights("clip_l", "conditioner.embedders.0.transformer.", dtype), options);
    const ClipEncoder ours(weights("clip_l", "open_clip.", dtype), options);
    REQUIRE(ours.blocks() == 3);
    const ClipOutput a = theirs.forward(ids, LocalOps()), b = ours.forward(ids, LocalOps());
    CHECK(at::equal(a.hidden, b.hidden));
    CHECK(relative_l2(b.pooled, a.pooled) < 1e-6);
  }
}

TEST_CASE("layers count from the architecture's last: a file may leave that out") {
  // 24 layers as narrow as they may be, and the same file less its last.
  const test::Folder folder;
  std::vector<test::Entry> whole;
  const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    whole.push_back(test::drawn("text_model." + name, shape));
  };
  add("embeddings.token_embedding.weight", {100, 64}), add("embeddings.position_embedding.weight", {77, 64});
  for (const char* end : {"weight", "bias"}) {
    add(std::string("final_layer_norm.") + end, {64});
    for (int i = 0; i < 24; ++i) {
      const std::string layer = fmt::format("encoder.layers.{}.", i);
      const bool is_weight = std::string_view(end) == "weight";
      const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
        add(layer + name + "." + end, is_weight ? std::vector<std::int64_t>{out, in} : std::vector<std::int64_t>{out});
      };
      for (const char* name : {"layer_norm1.", "layer_norm2."}) add(layer + name + end, {64});
      for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"})
        linear(std::string("self_attn.") + name, 64, 64);
      linear("mlp.fc1", 8, 64), linear("mlp.fc2", 64, 8);
    }
  }
  std::vector<test::Entry> less = whole;
  std::erase_if(less, [](const test::Entry& entry) { return entry.name.find(".layers.23.") != std::string::npos; });
  const auto encoder = [&](const std::vector<test::Entry>& entries, const std::string& name) {
    const auto file = TensorFile::open(folder.write(name, test::safetensors(entries)));
    return ClipEncoder(Weights(file, "", at::kFloat, at::kCPU), {.end = 99, .quick_gelu = false});
  };
  const ClipEncoder all = encoder(whole, "24.safetensors"), most = encoder(less, "23.safetensors");
  CHECK(most.blocks() == 23);
  at::Tensor ids = at::randint(0, 99, {1, 77}, at::detail::createCPUGenerator(7), at::kLong);
  ids[0][40] = 99;
  for (const bool norm : {true, false}) {
    const ClipLayer last_but_one{.layer = -2, .norm = norm};
    const ClipOutput ours = most.forward(ids, LocalOps(), last_but_one);
    CHECK(at::equal(ours.hidden, all.forward(ids, LocalOps(), last_but_one).hidden));
    CHECK_FALSE(ours.pooled.defined());  // the last layer's
  }
  CHECK_THROWS_WITH_AS(
      most.forward(ids, LocalOps()),
      doctest::Contains("its layer 23 was asked for, and the file holds 23 of the encoder's 24 layers"), Error);
}

TEST_CASE("the level text_model may be left out, as early SD 1.x files do") {
  const ClipOptions options{.end = ClipTokenizer(golden("picture_merges.txt")).end()};
  const at::Tensor ids = at::randint(0, options.end, {1, 77}, at::detail::createCPUGenerator(6), at::kLong);
  const ClipEncoder whole(clip_l(), options);
  const ClipEncoder early(weights("clip_l", "conditioner.embedders.0.transformer.text_model."), options);
  REQUIRE(early.blocks() == whole.blocks());
  CHECK(at::equal(early.forward(ids, LocalOps()).hidden, whole.forward(ids, LocalOps()).hidden));
}

TEST_CASE("every recipe pads as its encoder was trained") {
  // CLIP-L pads with the end token, CLIP-G and CLIP-H with 0: the states of a padded place tell.
  const std::int64_t end = ClipTokenizer(golden("picture_merges.txt")).end();
  for (const auto& [recipe, pad] : {std::pair{&kSd1Text, end}, {&kSd2Text, std::int64_t{0}}}) {
    at::Tensor ids = at::full({1, 77}, pad, at::kLong);
    ids[0][0] = end - 1;
    ids[0][1] = end;
    const bool is_l = recipe == &kSd1Text;
    const ClipEncoder encoder(is_l ? clip_l() : clip_g(), {.end = end, .quick_gelu = is_l});
    const at::Tensor states = encoder.forward(ids, LocalOps(), {.layer = is_l ? -1 : -2}).hidden;
    CHECK(at::equal(Family(*recipe).encode("").context, states));
  }
}

TEST_CASE("sizes as SDXL and its refiner are told them") {
  const at::Tensor pooled = read(*cases(), "size.pooled");
  const auto equal = [](const at::Tensor& vector, const std::string& name) {
    // ComfyUI computes the sinusoids in fp32, where CPUs differ by 2.5e-6.
    CHECK(relative_l2(vector, read(*cases(), "size." + name)) <= 1e-5);
  };
  equal(sdxl_vector(pooled, 1216, 832), "sdxl");
  equal(sdxl_refiner_vector(pooled, 1216, 832, kPositiveAesthetic), "refiner_positive");
  equal(sdxl_refiner_vector(pooled, 1216, 832, kNegativeAesthetic), "refiner_negative");
  CHECK((sdxl_vector(pooled, 1, 1).sizes() == at::IntArrayRef{1, 2816}));
}

TEST_SUITE_END();
