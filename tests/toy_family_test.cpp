#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "cli/job/load_job.h"
#include "core/models/diffusion_model.h"
#include "core/need_parts.h"
#include "core/part_shapes.h"
#include "core/signs.h"
#include "core/text/text_encoder.h"
#include "tests/drawn_weights.h"
#include "tests/family_files.h"
#include "tests/rendering.h"
#include "vae/vae_models.h"

// A diffusion model, a text encoder and an autoencoder that the program knows through the rows added here alone.

using namespace mgpu;
using signs::dim, signs::has;

namespace {

constexpr int kChannels = 2, kWidth = 32;

/// A part's sizes are how many layers there are: x + tanh(W x).
Sizes read_layers(PartShapes& shapes, const std::string& level) {
  const int layers = shapes.blocks(level);
  for (int i = 0; i < layers; ++i) shapes.expect(fmt::format("{}{}.weight", level, i), {kWidth, kWidth});
  return layers;
}

struct ToyState {
  at::Tensor x;     ///< [1, tokens, C]
  at::Tensor text;  ///< [1, 1, C], of the diffusion model
  std::int64_t rows = 0;
  std::vector<at::Tensor*> travelling() { return {&x, &text}; }
};

/// The layers of one device, of the encoder (with its table) or the diffusion model.
class ToyLayers {
 public:
  using State = ToyState;
  ToyLayers(const Weights& weights, const HeldBlocks& held) : layers_(static_cast<std::size_t>(held.count())) {
    if (held.stem() && weights.has("table")) table_ = weights.get("table");
    for (int i = 0; i < held.count(); ++i) {
      if (!held.has(i)) continue;
      const HeldBlocks::Loading loading(held, i);
      layers_[static_cast<std::size_t>(i)] = held.weights_of(i, weights).linear(fmt::format("layers.{}", i));
    }
  }
  State embed(const at::Tensor& ids) const { return {.x = at::embedding(table_, ids), .text = {}}; }
  void block(int index, State& state, const Ops& ops) const {
    state.x = state.x + ops.linear_row(state.x, layers_.at(static_cast<std::size_t>(index))).tanh();
  }
  std::vector<at::Tensor*> block_tensors(int index) {
    return layers_.at(static_cast<std::size_t>(index)).weight.tensors();
  }
  std::int64_t width() const { return kWidth; }

 private:
  at::Tensor table_;
  std::vector<Linear> layers_;
};

class ToyTokenizer final : public PromptTokenizer {
 public:
  std::vector<Chunk> chunks(std::string_view prompt, const FindVectors& find) const override {
    const auto bytes = [](std::string_view text) { return std::vector<std::int64_t>(text.begin(), text.end()); };
    return tokenize(prompt, bytes, rule(), find);
  }
  static ChunkRule rule() { return {.start = {}, .end = 1, .pad = 0, .shortest = 8}; }
};

class ToyPromptEncoder final : public PromptEncoder {
 public:
  ToyPromptEncoder(const Weights& weights, std::vector<EncoderPiece> pieces)
      : encoder_(std::move(pieces), [&](const EncoderPiece& piece) {
          return std::make_unique<ToyLayers>(weights.on(piece.device), piece.held);
        }) {}
  EncodedText encode(std::string_view prompt, std::int64_t, const Ops& ops) const override {
    return encode_chunks(
        ToyTokenizer().chunks(prompt, {}), ToyTokenizer::rule(), [&](const Chunk& chunk) -> EncodedText {
          const at::Tensor hidden =
              encoder_.forward([&](const ToyLayers& encoder) { return encoder.embed(chunk_tokens(chunk).ids); },
                               [](const ToyLayers&, const ToyState& state) { return state.x; }, ops);
          return {hidden, hidden.mean(1)};
        });
  }

 private:
  EncoderInPieces<ToyLayers> encoder_;
};

class ToyText final : public TextEncoderModel {
 public:
  using TextEncoderModel::TextEncoderModel;
  std::string_view kind() const override { return "a toy text encoder"; }
  Sizes read(PartShapes& shapes) const override {
    shapes.expect("table", {256, kWidth});
    return read_layers(shapes, "layers.");
  }
  BlockCounts blocks(const Sizes& sizes) const override { return {{"layer", std::any_cast<int>(sizes)}}; }
  int width(const Part&) const override { return kWidth; }
  ComponentNeed need(const Part& part, const EncoderUse&, at::ScalarType dtype,
                     const LargestPicture& picture) const override {
    const auto bytes = encoder_activation(static_cast<std::uint64_t>(tokens(picture)), kWidth, kWidth, 1);
    return encoder_need(key(), part, dtype, blocks_below("layer", layers(part), part, "layers.", dtype),
                        bytes_below(part, "table", dtype), 0, bytes, bytes);
  }
  std::unique_ptr<PromptTokenizer> tokenizer(const std::string&, const EncoderUse&, bool) const override {
    return std::make_unique<ToyTokenizer>();
  }
  std::unique_ptr<PromptEncoder> load(const EncoderUse&, bool, const Weights& weights, const std::string&,
                                      const TextualInversions&, std::vector<EncoderPiece> pieces) const override {
    return std::make_unique<ToyPromptEncoder>(weights, std::move(pieces));
  }
};
const ToyText kToyText({{"a toy text encoder", "encoders.toy", {"toy_text."}}, "toy", "Toy", "toy"});

class ToyShard final : public DiffusionShard {
 public:
  ToyShard(const Weights& weights, const HeldBlocks& held) : layers_(weights, held) {
    if (held.stem()) in_ = weights.linear("in");
    if (held.head()) out_ = weights.linear("out");
  }
  struct ToyRunState final : RunState {
    std::vector<at::Tensor> texts;
  };
  std::unique_ptr<RunState> begin_run(std::span<const double>, std::span<const RunConditioning> texts, const RunFacts&,
                                      const Ops&) override {
    auto out = std::make_unique<ToyRunState>();
    for (const RunConditioning& text : texts) out->texts.push_back(text.conditioning->pooled.unsqueeze(1));
    return out;
  }
  std::unique_ptr<DiffusionPass> begin(const RunState& run_state, const at::Tensor& x, double timestep,
                                       std::size_t text, const Ops& ops) const override {
    ToyState state{ops.linear_col(x.flatten(2).transpose(1, 2), in_),
                   static_cast<const ToyRunState&>(run_state).texts[text], x.size(2)};
    return std::make_unique<PassOf<ToyState>>(timestep, text, state);
  }
  void run(int block, DiffusionPass& pass, RunState&, const Ops& ops) const override {
    ToyState& state = static_cast<PassOf<ToyState>&>(pass).state;
    state.x = state.x + pass.timestep / 1000 * state.text;
    layers_.block(block, state, ops);
  }
  std::vector<at::Tensor*> block_tensors(int block) override { return layers_.block_tensors(block); }
  at::Tensor finish(DiffusionPass& pass, RunState&, const Ops& ops) const override {
    const ToyState& state = static_cast<PassOf<ToyState>&>(pass).state;
    return ops.linear_row(state.x, out_).transpose(1, 2).unflatten(2, {state.rows, -1});
  }

 private:
  Linear in_, out_;
  ToyLayers layers_;
};

class ToyModel final : public DiffusionModel {
 public:
  std::string_view kind() const override { return "a toy diffusion model"; }
  Sizes read(PartShapes& shapes) const override {
    shapes.expect("in.weight", {kWidth, kChannels});
    shapes.expect("out.weight", {kChannels, kWidth});
    return read_layers(shapes, "layers.");
  }
  BlockCounts blocks(const Sizes& sizes) const override { return {{"toy", std::any_cast<int>(sizes)}}; }
  ComponentNeed need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const override {
    const std::uint64_t latents = latent_bytes(part.row->training->latent, picture);
    const std::uint64_t state = static_cast<std::uint64_t>(picture.pixels() / 64 + 1) * kWidth * kFp32;
    return {.name = "unet",
            .phase = Phase::Sample,
            .blocks = {blocks_below("toy", part.as<int>(), part, "layers.", dtype)},
            .bytes = loaded_bytes(part, dtype),
            .activation = 5 * state,
            .pass_bytes = state,
            .latent_device_bytes = static_cast<std::uint64_t>(picture.batch) * latents,
            .latents = latents};
  }
  std::unique_ptr<DiffusionShard> load(const Part&, const Weights& weights, const HeldBlocks& held,
                                       const WarmUpShape&) const override {
    return std::make_unique<ToyShard>(weights, held);
  }
};
const ToyModel kToyModel;

constexpr EncoderUse kToyUses[] = {{.encoder = &kToyText, .pooled = EncoderUse::Pooled::State}};
constexpr TextRecipe kToyRecipe{.encoders = kToyUses, .breaks = false};
constexpr std::array<std::array<float, 3>, kChannels> kToyColours{{{0.3F, 0.1F, 0.0F}, {0.0F, 0.2F, 0.4F}}};
constexpr LatentRgb kToyRgb{.factors = kToyColours};

std::vector<FamilyRow> toy_families() {
  const Training training{Prediction::Velocity, 1000, 0, {.channels = kChannels, .rgb = &kToyRgb}, 8};
  return {{&kToyText.role(), "a toy text encoder", {has("table")}, "", &kToyText},
          {&kDiffusionRole,
           "a toy checkpoint",
           {has("layers.0.weight"), dim("in.weight", 1, kChannels)},
           "",
           &kToyModel,
           "toy",
           training,
           &kToyRecipe},
          {&kVaeRole, "a toy autoencoder", {dim("decoder.conv_in.weight", 1, kChannels)}, "", &kVae}};
}

test::Entries toy_checkpoint() {
  test::Entries out = test::vae("vae.", kChannels) + test::Entries{{"net.in.weight", DType::F32, {kWidth, kChannels}},
                                                                   {"net.out.weight", DType::F32, {kChannels, kWidth}},
                                                                   {"toy_text.table", DType::F32, {256, kWidth}}};
  for (int i = 0; i < 6; ++i)
    for (const char* part : {"net", "toy_text"})
      out.push_back({fmt::format("{}.layers.{}.weight", part, i), DType::F32, {kWidth, kWidth}});
  for (test::Entry& entry : out) entry = test::drawn(entry.name, entry.shape);
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("toy_family");

TEST_CASE("a family that is rows alone plans, shards, streams, previews, decodes every way and embeds its job") {
  const AddedFamilies added(toy_families());
  const test::Folder folder;
  folder.write("toy.safetensors", test::safetensors(toy_checkpoint()));
  const auto render = [&](const std::string& name, const std::string& devices, const std::string& more) {
    const Job job = load_job(folder.write(
        name + ".yaml", fmt::format("checkpoint: toy.safetensors\ngpu_ids: [{}]\n{}sampler: {{steps: 3, cfg: 2}}\n"
                                    "images: [{{prompt: a boat, width: 256, height: 192, count: 2}}]\n"
                                    "output: {{directory: {}, name: \"{{index}}.png\"}}\n",
                                    devices, more, name)));
    const RenderResult result = test::render_all({job}, {{}, {}, false, false, /*preview=*/1});
    CHECK(result.code == Exit::Ok);
    return std::pair(result.reports.front(), test::read_all(folder.path(name + "/1.png")));
  };
  const std::string one = render("one", "cpu:0", "").second;
  const auto [sharded, three] =
      render("three", "cpu:0, cpu:1, cpu:2", "mode: shard\nallocation: {toy: \"cpu:0,50%;cpu:1,50%\"}\n");
  CHECK(three == one);
  for (const DeviceReport& device : sharded.devices) CHECK(device.blocks_executed_per_pass == 2);
  const auto [streamed, from_memory] = render("streamed", "cpu:0", "allocation: {unet: \"cpu:0,50%;cpu,*\"}\n");
  CHECK(from_memory == one);
  CHECK(std::ranges::any_of(streamed.devices.front().assignments, &Assignment::streamed));
  CHECK(render("parallel", "cpu:0, cpu:1, cpu:2", "decode: {way: parallel}\n").second == one);
  const char* tiles = "decode: {way: tiled, tile: 128, overlap: 32}\n";
  CHECK(render("tiled", "cpu:0", tiles).second == render("tiled_on_three", "cpu:0, cpu:1, cpu:2", tiles).second);
  const auto set = [](const std::string& key, const std::string& value) { return parse_setting(key + "=" + value); };
  const Job again =
      load_job(folder.path("one/1.png"), {set("model_paths", "[\"" + folder.path("") + "\"]"),
                                          set("output.directory", folder.path("again")), set("gpu_ids", "[cpu:0]")});
  CHECK(test::render_all({again}).code == Exit::Ok);
  CHECK(test::read_all(folder.path("again/1-0000-1.png")) == one);
}

TEST_SUITE_END();
