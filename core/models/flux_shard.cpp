#include "core/models/flux_shard.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "core/host_memory.h"
#include "core/models/flux.h"
#include "core/weak_cache.h"

namespace mgpu {
namespace {

// Texts for which a reading of the modulation's weights serves, and those that are kept behind the last: runs that
// begin at the same time may ask for them. A text takes 2 MB of main memory a step of Flux dev.
constexpr std::size_t kPrefetched = 8, kKept = 4;

at::Tensor copy_on(at::Device device, const at::Tensor& tensor) {
  return tensor.to(device, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
}

class FluxShard final : public DiffusionShard {
 public:
  FluxShard(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held, const WarmUpShape& warm_up_shape)
      : model_(sizes, weights, held), device_(weights.device()), keeps_precomputed_(held.keeps_precomputed()) {
    if (weights.device().is_cuda() && warm_up_shape.width > 0) warm_up(weights, held, warm_up_shape);
  }

  void prefetch(std::span<const UpcomingConditioning> texts, const Ops& ops) override {
    if (keeps_precomputed_) {  // a run computes its own, by kernels that a GPU loads now
      if (device_.is_cuda() && !texts.empty()) model_.modulate(asked_for(texts.front()).steps(), ops);
      return;
    }
    for (const UpcomingConditioning& text : texts) {
      const Asked asked = asked_for(text);
      if (std::ranges::find(upcoming_, asked) == upcoming_.end()) upcoming_.push_back(asked);
    }
    if (!upcoming_.empty()) prefetch_next(0, ops);
  }

  std::unique_ptr<RunState> begin_run(std::span<const double> timesteps, std::span<const RunConditioning> texts,
                                      const RunFacts& facts, const Ops& ops) override {
    auto run_state = std::make_unique<FluxRunState>();
    for (const RunConditioning& text : texts) {
      const FluxCondition condition{text.conditioning->context, text.conditioning->pooled, facts.guidance};
      run_state->texts.push_back(
          {condition, steps_of({condition.pooled, facts.guidance, {timesteps.begin(), timesteps.end()}}, ops)});
    }
    return run_state;
  }

  std::unique_ptr<DiffusionPass> begin(const RunState& run_state, const at::Tensor& x, double timestep,
                                       std::size_t text, const Ops& ops) const override {
    const FluxCondition& condition = static_cast<const FluxRunState&>(run_state).texts.at(text).condition;
    return std::make_unique<PassOf<FluxState>>(timestep, text, model_.begin(x, condition, ops));
  }

  void run(int block, DiffusionPass& pass, RunState& run_state, const Ops& ops) const override {
    model_.block(block, state_of(pass, run_state, ops), ops);
  }

  at::Tensor finish(DiffusionPass& pass, RunState& run_state, const Ops& ops) const override {
    return model_.finish(state_of(pass, run_state, ops), ops);
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
  struct FluxRunState final : RunState {
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

  static Asked asked_for(const UpcomingConditioning& text) {
    return {text.conditioning->pooled, text.guidance, text.timesteps};
  }

  /// Runs stem, head and a block of each kind, as far as they are held, on zeros.
  void warm_up(const Weights& weights, const HeldBlocks& held, const WarmUpShape& sizes_of) const {
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
    const auto own = std::ranges::find(upcoming_, asked);
    if (own == upcoming_.end()) return model_.modulate(asked.steps(), ops);
    const auto number = static_cast<std::size_t>(own - upcoming_.begin());
    prefetch_next(number, ops);
    return prefetched_.at(number).changed([this](const at::Tensor& rows) { return copy_on(device_, rows); });
  }

  /// Computes the modulation of a text to come, and of those after it, if it is not there. A negative prompt that all
  /// runs are told comes again and again: what is ahead of it stays.
  void prefetch_next(std::size_t number, const Ops& ops) {
    if (prefetched_.contains(number)) return;
    std::erase_if(prefetched_, [&](const auto& old) { return old.first + kKept < number; });
    std::size_t end = number + 1;
    while (end < std::min(number + kPrefetched, upcoming_.size()) && !prefetched_.contains(end)) ++end;
    std::vector<FluxSteps> wanted;
    for (std::size_t i = number; i < end; ++i) wanted.push_back(upcoming_[i].steps());
    std::vector<FluxModulation> found = model_.modulate(wanted, ops, [](const at::Tensor& rows) {
      const HostDeviceScope nobody;  // main memory, though the device may be a virtual one
      return copy_on(at::kCPU, rows);
    });
    for (std::size_t i = number; i < end; ++i) prefetched_[i] = std::move(found[i - number]);
  }

  /// The pass's state, with this device's rotary table and its modulation of the step.
  FluxState& state_of(DiffusionPass& pass, RunState& run_state, const Ops& ops) const {
    FluxText& one = static_cast<FluxRunState&>(run_state).texts.at(pass.text);
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
  bool keeps_precomputed_;
  WeakCache<Asked, const std::map<double, FluxModulation>> known_;
  mutable WeakCache<std::array<std::int64_t, 3>, const RotaryTable> rotary_;  ///< of the device's worker alone
  std::vector<Asked> upcoming_;                                               ///< each once
  std::map<std::size_t, FluxModulation> prefetched_;                          ///< of those, in main memory
};

}  // namespace

std::unique_ptr<DiffusionShard> load_flux_shard(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held,
                                                const WarmUpShape& warm_up_shape) {
  return std::make_unique<FluxShard>(sizes, weights, held, warm_up_shape);
}

}  // namespace mgpu
