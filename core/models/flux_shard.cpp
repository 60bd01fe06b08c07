#include "core/models/flux_shard.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "core/host_memory.h"
#include "core/live_values.h"
#include "core/models/flux.h"

namespace mgpu {
namespace {

// Texts for which a reading of the modulation's weights serves, and those that are kept behind the last: runs that
// begin at the same time may ask for them. A text takes 2 MB of main memory a step of Flux dev.
constexpr std::size_t kForeseen = 8, kKept = 4;

at::Tensor copy_on(at::Device device, const at::Tensor& tensor) {
  return tensor.to(device, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
}

class FluxShard final : public DiffusionShard {
 public:
  FluxShard(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held, const Rehearsal& rehearsal)
      : model_(sizes, weights, held), device_(weights.device()), keeps_ahead_(held.keeps_ahead()) {
    if (weights.device().is_cuda() && rehearsal.width > 0) rehearse(weights, held, rehearsal);
  }

  void foresee(std::span<const ForeseenText> texts, const Ops& ops) override {
    if (keeps_ahead_) {  // a run computes its own, by kernels that a GPU loads now
      if (device_.is_cuda() && !texts.empty()) model_.modulate(asked_for(texts.front()).steps(), ops);
      return;
    }
    for (const ForeseenText& text : texts) {
      const Asked asked = asked_for(text);
      if (std::ranges::find(to_come_, asked) == to_come_.end()) to_come_.push_back(asked);
    }
    if (!to_come_.empty()) look_ahead(0, ops);
  }

  std::unique_ptr<Told> begin_run(std::span<const double> timesteps, std::span<const ToldText> texts,
                                  const RunFacts& facts, const Ops& ops) override {
    auto told = std::make_unique<FluxTold>();
    for (const ToldText& text : texts) {
      const FluxCondition condition{text.conditioning->context, text.conditioning->pooled, facts.guidance};
      told->texts.push_back(
          {condition, steps_of({condition.pooled, facts.guidance, {timesteps.begin(), timesteps.end()}}, ops)});
    }
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
  using Steps = std::shared_ptr<const std::map<double, FluxModulation>>;  ///< by timestep
  struct FluxText {
    FluxCondition condition;
    Steps steps;
    std::shared_ptr<const RotaryTable> rotary = {};  ///< once a pass has come by
    /// Of the last level that was not foretold.
    double other_timestep = 0.0;
    std::optional<FluxModulation> other = {};
  };
  struct FluxTold final : Told {
    std::vector<FluxText> texts;
  };
  /// What a modulation follows from.
  struct Asked {
    at::Tensor pooled;
    double guidance = 0.0;
    std::vector<double> timesteps;
    bool operator==(const Asked& other) const {
      return pooled.is_same(other.pooled) && guidance == other.guidance && timesteps == other.timesteps;
    }
    FluxSteps steps() const { return {timesteps, {.context = {}, .pooled = pooled, .guidance = guidance}}; }
  };

  static Asked asked_for(const ForeseenText& text) {
    return {text.conditioning->pooled, text.guidance, text.timesteps};
  }

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

  Steps steps_of(const Asked& asked, const Ops& ops) {
    if (Steps known = known_.find(asked)) return known;
    const FluxModulation all = modulation_of(asked, ops);
    std::map<double, FluxModulation> steps;
    for (std::size_t i = 0; i < asked.timesteps.size(); ++i)
      steps[asked.timesteps[i]] = all.step(static_cast<std::int64_t>(i));
    const Steps out = std::make_shared<const std::map<double, FluxModulation>>(std::move(steps));
    known_.add(asked, out);
    return out;
  }

  FluxModulation modulation_of(const Asked& asked, const Ops& ops) {
    const auto own = std::ranges::find(to_come_, asked);
    if (own == to_come_.end()) return model_.modulate(asked.steps(), ops);
    const auto number = static_cast<std::size_t>(own - to_come_.begin());
    look_ahead(number, ops);
    return foreseen_.at(number).changed([this](const at::Tensor& rows) { return copy_on(device_, rows); });
  }

  /// Computes the modulation of a text to come, and of those after it, if it is not there. A negative prompt that all
  /// runs are told comes again and again: what is ahead of it stays.
  void look_ahead(std::size_t number, const Ops& ops) {
    if (foreseen_.contains(number)) return;
    std::erase_if(foreseen_, [&](const auto& old) { return old.first + kKept < number; });
    std::size_t end = number + 1;
    while (end < std::min(number + kForeseen, to_come_.size()) && !foreseen_.contains(end)) ++end;
    std::vector<FluxSteps> wanted;
    for (std::size_t i = number; i < end; ++i) wanted.push_back(to_come_[i].steps());
    std::vector<FluxModulation> found = model_.modulate(wanted, ops, [](const at::Tensor& rows) {
      const HostDeviceScope nobody;  // main memory, though the device may be a virtual one
      return copy_on(at::kCPU, rows);
    });
    for (std::size_t i = number; i < end; ++i) foreseen_[i] = std::move(found[i - number]);
  }

  /// The pass's state, with this device's rotary table and its modulation of the step.
  FluxState& state_of(DiffusionPass& pass, Told& told, const Ops& ops) const {
    FluxText& one = static_cast<FluxTold&>(told).texts.at(pass.text);
    FluxState& state = static_cast<PassOf<FluxState>&>(pass).state;
    if (!one.rotary) one.rotary = rotary_of(state);
    state.modulation = &modulation_at(pass.timestep, one, ops);
    state.rotary = one.rotary.get();
    return state;
  }

  /// One for all runs of a size and a length of text.
  std::shared_ptr<const RotaryTable> rotary_of(const FluxState& state) const {
    const std::array key{state.text_tokens, state.rows, state.columns};
    if (auto known = rotary_.find(key)) return known;
    const auto out = std::make_shared<const RotaryTable>(model_.rotary(state));
    rotary_.add(key, out);
    return out;
  }

  const FluxModulation& modulation_at(double timestep, FluxText& text, const Ops& ops) const {
    if (const auto step = text.steps->find(timestep); step != text.steps->end()) return step->second;
    if (!text.other || text.other_timestep != timestep) {
      text.other = model_.modulate({{&timestep, 1}, text.condition}, ops);
      text.other_timestep = timestep;
    }
    return *text.other;
  }

  Flux model_;
  at::Device device_;
  bool keeps_ahead_;
  LiveValues<Asked, const std::map<double, FluxModulation>> known_;
  mutable LiveValues<std::array<std::int64_t, 3>, const RotaryTable> rotary_;  ///< of the device's worker alone
  std::vector<Asked> to_come_;                                                 ///< each once
  std::map<std::size_t, FluxModulation> foreseen_;                             ///< of those, in main memory
};

}  // namespace

std::unique_ptr<DiffusionShard> load_flux_shard(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held,
                                                const Rehearsal& rehearsal) {
  return std::make_unique<FluxShard>(sizes, weights, held, rehearsal);
}

}  // namespace mgpu
