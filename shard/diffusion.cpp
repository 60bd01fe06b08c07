#include "shard/diffusion.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "core/error.h"
#include "core/models/flux.h"
#include "core/models/unet.h"
#include "core/text/size_conditioning.h"

namespace mgpu {
namespace {

/// A pass whose state is the model's own.
template <class State>
struct PassOf final : DiffusionPass {
  PassOf(double at, std::size_t told, State begun) : DiffusionPass(at, told), state(std::move(begun)) {}
  std::vector<at::Tensor*> travelling() override { return state.travelling(); }

  State state;
};

class FluxShard final : public DiffusionShard {
 public:
  FluxShard(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held, const Rehearsal& rehearsal)
      : model_(sizes, weights, held) {
    if (weights.device().is_cuda() && rehearsal.width > 0) rehearse(weights, held, rehearsal);
  }

  std::unique_ptr<Told> begin_run(std::span<const double> timesteps, std::span<const ToldText> texts,
                                  const RunFacts& facts, const Ops& ops) const override {
    auto told = std::make_unique<FluxTold>();
    std::vector<Modulated> modulated;
    for (const ToldText& text : texts) {
      const FluxCondition condition{text.conditioning->context, text.conditioning->pooled, facts.guidance};
      modulated.push_back(modulate(timesteps, condition, ops));
      told->texts.push_back({condition, modulated.back().steps});
    }
    last_ = std::move(modulated);
    return told;
  }

  std::unique_ptr<DiffusionPass> begin(const Told& told, const at::Tensor& x, double timestep, std::size_t text,
                                       const Ops& ops) const override {
    const FluxCondition& condition = static_cast<const FluxTold&>(told).texts.at(text).condition;
    return std::make_unique<PassOf<FluxState>>(timestep, text, model_.begin(x, condition, ops));
  }

  void run(int block, DiffusionPass& pass, Told& told, const Ops& ops) const override {
    model_.block(block, state_of(pass, told, ops), ops);
  }

  at::Tensor finish(DiffusionPass& pass, Told& told, const Ops& ops) const override {
    return model_.finish(state_of(pass, told, ops), ops);
  }

  std::vector<at::Tensor*> block_tensors(int block) override { return model_.block_tensors(block); }

 private:
  using Steps = std::shared_ptr<std::map<double, FluxModulation>>;  ///< by timestep
  struct FluxText {
    FluxCondition condition;
    Steps steps;
    RotaryTable rotary = {};  ///< once a pass has come by
  };
  struct FluxTold final : Told {
    std::vector<FluxText> texts;
  };
  /// What a run was modulated with, kept for the next one: its pictures often differ in their seeds alone.
  struct Modulated {
    at::Tensor pooled;
    double guidance = 0.0;
    std::vector<double> timesteps;
    Steps steps;
  };

  /// Runs stem, head and a block of each kind, as far as they are held, on zeros.
  void rehearse(const Weights& weights, const HeldBlocks& held, const Rehearsal& sizes_of) const {
    constexpr std::int64_t kPixelsOfToken = 16;
    const LocalOps ops;
    const FluxSizes& sizes = model_.sizes();
    const std::int64_t rows = sizes_of.height / kPixelsOfToken, columns = sizes_of.width / kPixelsOfToken;
    const auto zeros = [&](at::IntArrayRef shape) {
      return at::zeros(shape, at::TensorOptions(weights.dtype()).device(weights.device()));
    };
    FluxState state{.image = zeros({1, rows * columns, sizes.hidden}),
                    .text = zeros({1, sizes_of.text_tokens, sizes.hidden}),
                    .text_tokens = sizes_of.text_tokens,
                    .rows = rows,
                    .columns = columns};
    if (held.stem()) {
      const at::Tensor x = zeros({1, sizes.channels, 2 * rows, 2 * columns}).to(at::kFloat);
      state = model_.begin(x, {.context = zeros({1, sizes_of.text_tokens, sizes.context}), .pooled = {}}, ops);
    }
    FluxModulation still;
    still.image.assign(static_cast<std::size_t>(sizes.depth), zeros({1, 1, 6 * sizes.hidden}));
    still.text = still.image;
    still.single.assign(static_cast<std::size_t>(sizes.depth_single), zeros({1, 1, 3 * sizes.hidden}));
    still.last = zeros({1, 1, 2 * sizes.hidden});
    const RotaryTable table = model_.rotary(state);
    state.modulation = &still;
    state.rotary = &table;
    const auto run_one = [&](int first, int last) {
      while (first < last && (!held.has(first) || held.streams(first))) ++first;
      if (first < last) model_.block(first, state, ops);
    };
    run_one(0, sizes.depth);
    run_one(sizes.depth, held.count());
    if (held.head() && !state.text.defined()) model_.finish(state, ops);
  }

  Modulated modulate(std::span<const double> timesteps, const FluxCondition& condition, const Ops& ops) const {
    for (const Modulated& last : last_)
      if (last.pooled.is_same(condition.pooled) && last.guidance == condition.guidance &&
          std::ranges::equal(last.timesteps, timesteps))
        return last;
    Modulated out{condition.pooled, condition.guidance, {timesteps.begin(), timesteps.end()}, {}};
    out.steps = std::make_shared<std::map<double, FluxModulation>>();
    std::vector<FluxModulation> steps = model_.modulate(timesteps, condition, ops);
    for (std::size_t i = 0; i < timesteps.size(); ++i) (*out.steps)[timesteps[i]] = std::move(steps[i]);
    return out;
  }

  /// The pass's state, with this device's rotary table and its modulation of the step.
  FluxState& state_of(DiffusionPass& pass, Told& told, const Ops& ops) const {
    FluxText& one = static_cast<FluxTold&>(told).texts.at(pass.text);
    const auto [step, is_new] = one.steps->try_emplace(pass.timestep);
    if (is_new) step->second = std::move(model_.modulate({&pass.timestep, 1}, one.condition, ops).front());
    FluxState& state = static_cast<PassOf<FluxState>&>(pass).state;
    if (!one.rotary.cos.defined()) one.rotary = model_.rotary(state);
    state.modulation = &step->second;
    state.rotary = &one.rotary;
    return state;
  }

  Flux model_;
  mutable std::vector<Modulated> last_;
};

class UNetShard final : public DiffusionShard {
 public:
  UNetShard(const FamilyRow& family, const UNetSizes& sizes, const Weights& weights, const HeldBlocks& held)
      : family_(family), model_(sizes, weights, held) {}

  std::unique_ptr<Told> begin_run(std::span<const double>, std::span<const ToldText> texts, const RunFacts& facts,
                                  const Ops& ops) const override {
    auto told = std::make_unique<UNetTold>();
    // Once a run: from main memory each pass would wait for the device.
    if (facts.channels.defined()) told->channels = facts.channels.to(texts.front().conditioning->context.device());
    for (const ToldText& text : texts)
      told->texts.push_back({model_.text(text.conditioning->context, ops), vector(text, facts)});
    return told;
  }

  std::unique_ptr<DiffusionPass> begin(const Told& told, const at::Tensor& x, double timestep, std::size_t text,
                                       const Ops& ops) const override {
    const auto& [texts, channels] = static_cast<const UNetTold&>(told);
    const at::Tensor input = channels.defined() ? at::cat({x, channels}, 1) : x;
    return std::make_unique<PassOf<UNetState>>(timestep, text,
                                               model_.begin(input, timestep, texts.at(text).vector, ops));
  }

  void run(int block, DiffusionPass& pass, Told& told, const Ops& ops) const override {
    UNetState& state = static_cast<PassOf<UNetState>&>(pass).state;
    state.text = &static_cast<UNetTold&>(told).texts.at(pass.text).text;
    model_.block(block, state, ops);
  }

  at::Tensor finish(DiffusionPass& pass, Told&, const Ops& ops) const override {
    return model_.finish(static_cast<PassOf<UNetState>&>(pass).state, ops);
  }

  std::vector<at::Tensor*> block_tensors(int block) override { return model_.block_tensors(block); }

 private:
  struct UNetWords {
    UNetText text;
    at::Tensor vector;  ///< pooled text and sizes; undefined for a family that takes none
  };
  struct UNetTold final : Told {
    std::vector<UNetWords> texts;
    at::Tensor channels;
  };

  at::Tensor vector(const ToldText& text, const RunFacts& facts) const {
    if (family_.size_values == 0) return {};
    const at::Tensor& pooled = text.conditioning->pooled;
    if (!family_.aesthetic) return sdxl_vector(pooled, facts.height, facts.width);
    return sdxl_refiner_vector(pooled, facts.height, facts.width,
                               text.negative ? kNegativeAesthetic : kPositiveAesthetic);
  }

  const FamilyRow& family_;
  UNet model_;
};

}  // namespace

std::vector<DiffusionBlock> diffusion_blocks(const ModelSet& models) {
  std::vector<DiffusionBlock> out;
  if (!models.is_flux()) {
    for (const UNetBlockName& name : unet_blocks(models.diffusion.unet())) out.push_back({name.kind, name.number});
    return out;
  }
  const FluxSizes& flux = models.diffusion.flux();
  for (int i = 0; i < flux.depth; ++i) out.push_back({"double", i});
  for (int i = 0; i < flux.depth_single; ++i) out.push_back({"single", i});
  return out;
}

std::unique_ptr<DiffusionShard> load_shard(const ModelSet& models, const HeldBlocks& held, at::ScalarType dtype,
                                           at::Device device, const Rehearsal& rehearsal) {
  const Part& part = models.diffusion;
  const Weights weights = weights_of(part, dtype, device);
  if (models.is_flux()) return std::make_unique<FluxShard>(part.flux(), weights, held, rehearsal);
  return std::make_unique<UNetShard>(*part.row, part.unet(), weights, held);
}

}  // namespace mgpu
