#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "cli/job.h"
#include "core/models/diffusion_model.h"
#include "core/need_parts.h"
#include "core/part_shapes.h"
#include "core/signs.h"
#include "core/text/text_encoder.h"
#include "tests/drawn_weights.h"
#include "tests/family_files.h"
#include "tests/rendering.h"
#include "vae/vae_models.h"

// A diffusion model, a text encoder and an autoencoder that the program knows through the rows that are added here, and
// through nothing else: what CONTRIBUTING.md says is enough, is.

using namespace mgpu;
using namespace mgpu::signs;

namespace {

constexpr int kChannels = 2, kWidth = 32;

// ---- The text encoder: one token a byte, a table, and layers x + tanh(W x) ----

struct ToySizes {
  int layers = 0;
};

ToySizes read_layers(PartShapes& shapes, const std::string& level) {
  const ToySizes sizes{shapes.blocks(level)};
  for (int i = 0; i < sizes.layers; ++i) shapes.expect(fmt::format("{}{}.weight", level, i), {kWidth, kWidth});
  return sizes;
}

/// Loads what is held of `layers` matrices below a level, for the encoder and the diffusion model alike.
class ToyLayers {
 public:
  ToyLayers(const Weights& weights, const std::string& level, const HeldBlocks& held)
      : layers_(static_cast<std::size_t>(held.count())) {
    for (int i = 0; i < held.count(); ++i) {
      if (!held.has(i)) continue;
      const HeldBlocks::Loading loading(held, i);
      layers_[static_cast<std::size_t>(i)] = held.weights_of(i, weights).linear(level + std::to_string(i));
    }
  }
  at::Tensor run(int index, const at::Tensor& x, const Ops& ops) const {
    return x + ops.linear_row(x, layers_.at(static_cast<std::size_t>(index))).tanh();
  }
  std::vector<at::Tensor*> tensors(int index) { return {&layers_.at(static_cast<std::size_t>(index)).weight}; }

 private:
  std::vector<Linear> layers_;
};

class ToyEncoder {
 public:
  struct State {
    at::Tensor x;  ///< [1, N, C]
    std::vector<at::Tensor*> travelling() { return {&x}; }
  };
  ToyEncoder(const Weights& weights, const HeldBlocks& held) : layers_(weights, "layers.", held) {
    if (held.stem()) table_ = weights.get("table");
  }
  State embed(const at::Tensor& ids) const { return {at::embedding(table_, ids)}; }
  void block(int index, State& state, const Ops& ops) const { state.x = layers_.run(index, state.x, ops); }
  std::vector<at::Tensor*> block_tensors(int index) { return layers_.tensors(index); }
  std::int64_t width() const { return kWidth; }

 private:
  at::Tensor table_;
  ToyLayers layers_;
};

class ToyTokenizer final : public PromptTokenizer {
 public:
  std::vector<Chunk> chunks(std::string_view prompt, const FindVectors& find) const override {
    const auto bytes = [](std::string_view text) {
      std::vector<std::int64_t> ids;
      for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
      return ids;
    };
    return tokenize(prompt, bytes, rule(), find);
  }
  static ChunkRule rule() { return {.start = {}, .end = 1, .pad = 0, .shortest = 8}; }
};

class ToyPromptEncoder final : public PromptEncoder {
 public:
  ToyPromptEncoder(const Weights& weights, std::vector<EncoderPiece> pieces)
      : encoder_(std::move(pieces), [&](const EncoderPiece& piece) {
          return std::make_unique<ToyEncoder>(weights.on(piece.device), piece.held);
        }) {}
  EncodedText encode(std::string_view prompt, std::int64_t, const Ops& ops) const override {
    return encode_chunks(
        ToyTokenizer().chunks(prompt, {}), ToyTokenizer::rule(), [&](const Chunk& chunk) -> EncodedText {
          const at::Tensor hidden =
              encoder_.forward([&](const ToyEncoder& encoder) { return encoder.embed(chunk_tokens(chunk).ids); },
                               [](const ToyEncoder&, const ToyEncoder::State& state) { return state.x; }, ops);
          return {hidden, hidden.mean(1)};
        });
  }

 private:
  EncoderInPieces<ToyEncoder> encoder_;
};

class ToyText final : public TextEncoderModel {
 public:
  using TextEncoderModel::TextEncoderModel;
  std::string_view kind() const override { return "a toy text encoder"; }
  Sizes read(PartShapes& shapes) const override {
    shapes.expect("table", {256, kWidth});
    return read_layers(shapes, "layers.");
  }
  BlockCounts blocks(const Sizes& sizes) const override {
    return {{"layer", std::any_cast<const ToySizes&>(sizes).layers}};
  }
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

// ---- The diffusion model: a latent's pixels as tokens, in, layers, out ----

struct ToyState {
  at::Tensor x;     ///< [1, h w, C]
  at::Tensor text;  ///< [1, 1, C]
  std::int64_t rows = 0;
  std::vector<at::Tensor*> travelling() { return {&x, &text}; }
};

class ToyShard final : public DiffusionShard {
 public:
  ToyShard(const Weights& weights, const HeldBlocks& held) : layers_(weights, "blocks.", held) {
    if (held.stem()) in_ = weights.linear("in");
    if (held.head()) out_ = weights.linear("out");
  }
  struct ToyTold final : Told {
    std::vector<at::Tensor> texts;
  };
  std::unique_ptr<Told> begin_run(std::span<const double>, std::span<const ToldText> texts, const RunFacts&,
                                  const Ops&) override {
    auto out = std::make_unique<ToyTold>();
    for (const ToldText& text : texts) out->texts.push_back(text.conditioning->pooled.unsqueeze(1));
    return out;
  }
  std::unique_ptr<DiffusionPass> begin(const Told& told, const at::Tensor& x, double timestep, std::size_t text,
                                       const Ops& ops) const override {
    ToyState state{ops.linear_col(x.flatten(2).transpose(1, 2), in_), static_cast<const ToyTold&>(told).texts[text],
                   x.size(2)};
    return std::make_unique<PassOf<ToyState>>(timestep, text, state);
  }
  void run(int block, DiffusionPass& pass, Told&, const Ops& ops) const override {
    ToyState& state = static_cast<PassOf<ToyState>&>(pass).state;
    state.x = layers_.run(block, state.x + pass.timestep / 1000 * state.text, ops);
  }
  std::vector<at::Tensor*> block_tensors(int block) override { return layers_.tensors(block); }
  at::Tensor finish(DiffusionPass& pass, Told&, const Ops& ops) const override {
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
    return read_layers(shapes, "blocks.");
  }
  BlockCounts blocks(const Sizes& sizes) const override {
    return {{"toy", std::any_cast<const ToySizes&>(sizes).layers}};
  }
  ComponentNeed need(const Part& part, at::ScalarType dtype, const LargestPicture& picture) const override {
    const std::uint64_t latents = latent_bytes(part.row->training->latent, picture);
    const std::uint64_t state = static_cast<std::uint64_t>(picture.pixels() / 64 + 1) * kWidth * kFp32;
    return {.name = "unet",
            .phase = Phase::Sample,
            .blocks = {blocks_below("toy", part.as<ToySizes>().layers, part, "blocks.", dtype)},
            .bytes = loaded_bytes(part, dtype),
            .activation = 5 * state,
            .passing = state,
            .head = bytes_below(part, "out.", dtype),
            .home = static_cast<std::uint64_t>(picture.batch) * latents,
            .latents = latents};
  }
  void check(const ModelSet&) const override {}
  std::unique_ptr<DiffusionShard> load(const Part&, const Weights& weights, const HeldBlocks& held,
                                       const Rehearsal&) const override {
    return std::make_unique<ToyShard>(weights, held);
  }
};
const ToyModel kToyModel;

// ---- The rows ----

constexpr EncoderUse kToyUses[] = {{.encoder = &kToyText, .pooled = EncoderUse::Pooled::State}};
constexpr TextRecipe kToyRecipe{.encoders = kToyUses, .breaks = false};
constexpr std::array<std::array<float, 3>, kChannels> kToyColours{{{0.3F, 0.1F, 0.0F}, {0.0F, 0.2F, 0.4F}}};
constexpr LatentRgb kToyRgb{.factors = kToyColours};

std::vector<FamilyRow> toy_families() {
  const Training training{.prediction = Prediction::Velocity,
                          .levels = 1000,
                          .latent = {.channels = kChannels, .rgb = &kToyRgb},
                          .size_multiple = 8};
  return {{&kToyText.role(), "a toy text encoder", {has("table")}, "", &kToyText},
          {&kDiffusionRole,
           "a toy checkpoint",
           {has("blocks.0.weight"), dim("in.weight", 1, kChannels)},
           "",
           &kToyModel,
           "toy",
           training,
           &kToyRecipe},
          {&kVaeRole, "a toy autoencoder", {dim("decoder.conv_in.weight", 1, kChannels)}, "", &kVae}};
}

test::Entries toy_checkpoint() {
  test::Entries out = test::vae("vae.", kChannels);
  for (const auto& [name, shape] :
       {std::pair("in.weight", test::Shape{kWidth, kChannels}), {"out.weight", {kChannels, kWidth}}})
    out.push_back({std::string("net.") + name, DType::F32, shape});
  out.push_back({"toy_text.table", DType::F32, {256, kWidth}});
  for (int i = 0; i < 6; ++i) out.push_back({fmt::format("net.blocks.{}.weight", i), DType::F32, {kWidth, kWidth}});
  for (int i = 0; i < 3; ++i)
    out.push_back({fmt::format("toy_text.layers.{}.weight", i), DType::F32, {kWidth, kWidth}});
  for (test::Entry& entry : out) entry = test::drawn(entry.name, entry.shape);
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("toy_family");

TEST_CASE("a family that is rows alone plans, shards, streams, previews, decodes every way and embeds its job") {
  const AddedFamilies added(toy_families());
  const test::Folder folder;
  folder.write("toy.safetensors", test::safetensors(toy_checkpoint()));
  RenderOptions options;
  options.preview = 1;
  const auto render = [&](const std::string& name, const std::string& devices, const std::string& more) {
    const Job job = load_job(folder.write(
        name + ".yaml", fmt::format("checkpoint: toy.safetensors\ngpu_ids: [{}]\n{}sampler: {{steps: 3, cfg: 2}}\n"
                                    "images: [{{prompt: a boat, width: 256, height: 192, count: 2}}]\n"
                                    "output: {{directory: {}, name: \"{{index}}.png\"}}\n",
                                    devices, more, name)));
    const RenderResult result = test::render_all({job}, options);
    CHECK(result.code == Exit::Ok);
    return std::pair(result.reports.front(), test::read_all(folder.path(name + "/1.png")));
  };
  constexpr const char* kThree = "cpu:0, cpu:1, cpu:2";
  const std::string one = render("one", "cpu:0", "").second;
  const auto [sharded, three] = render("three", kThree, "mode: shard\nallocation: {toy: \"cpu:0,50%;cpu:1,50%\"}\n");
  CHECK(three == one);
  for (const DeviceReport& device : sharded.devices) CHECK(device.blocks_executed_per_pass == 2);
  const auto [streamed, from_memory] = render("streamed", "cpu:0", "allocation: {unet: \"cpu:0,50%;cpu,*\"}\n");
  CHECK(from_memory == one);
  CHECK(std::ranges::any_of(streamed.devices.front().assignments, &Assignment::streamed));
  CHECK(render("parallel", kThree, "decode: {way: parallel}\n").second == one);
  const std::string tiles = "decode: {way: tiled, tile: 128, overlap: 32}\n";
  CHECK(render("tiled", "cpu:0", tiles).second == render("tiled_on_three", kThree, tiles).second);

  Job again =
      load_job(folder.path("one/1.png"), {parse_setting("model_paths=[\"" + folder.path("") + "\"]"),
                                          parse_setting("output.directory=\"" + folder.path("again") + "\""),
                                          parse_setting("output.name=p.png"), parse_setting("gpu_ids=[cpu:0]")});
  CHECK(test::render_all({again}).code == Exit::Ok);
  CHECK(test::read_all(folder.path("again/p.png")) == one);
}

TEST_SUITE_END();
