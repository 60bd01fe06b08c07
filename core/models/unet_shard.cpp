#include "core/models/unet_shard.h"

#include <ATen/ATen.h>

#include "core/models/unet.h"
#include "core/text/size_conditioning.h"
#include "core/weak_cache.h"

namespace mgpu {
namespace {

class UNetShard final : public DiffusionShard {
 public:
  UNetShard(const FamilyRow& family, const UNetSizes& sizes, const Weights& weights, const HeldBlocks& held)
      : family_(family), model_(sizes, weights, held), device_(weights.device()), begins_(held.stem()) {}

  std::unique_ptr<RunState> begin_run(std::span<const double>, std::span<const RunConditioning> texts,
                                      const RunFacts& facts, const Ops& ops) override {
    auto run_state = std::make_unique<UNetRunState>();
    // Once a run: from main memory each pass would wait for the device.
    if (begins_ && facts.channels.defined()) run_state->channels = facts.channels.to(device_);
    for (const RunConditioning& text : texts)
      run_state->texts.push_back({words_of(text.conditioning->context, ops), vector(text, facts)});
    return run_state;
  }

  std::unique_ptr<DiffusionPass> begin(const RunState& run_state, const at::Tensor& x, double timestep,
                                       std::size_t text, const Ops& ops) const override {
    const auto& [texts, channels] = static_cast<const UNetRunState&>(run_state);
    const at::Tensor input = channels.defined() ? at::cat({x.to(device_), channels}, 1) : x;
    return std::make_unique<PassOf<UNetState>>(timestep, text,
                                               model_.begin(input, timestep, texts.at(text).vector, ops));
  }

  void run(int block, DiffusionPass& pass, RunState& run_state, const Ops& ops) const override {
    UNetState& state = static_cast<PassOf<UNetState>&>(pass).state;
    state.text = static_cast<UNetRunState&>(run_state).texts.at(pass.text).text.get();
    model_.block(block, state, ops);
  }

  at::Tensor finish(DiffusionPass& pass, RunState&, const Ops& ops) const override {
    return model_.finish(static_cast<PassOf<UNetState>&>(pass).state, ops);
  }

  std::vector<at::Tensor*> block_tensors(int block) override { return model_.block_tensors(block); }

 private:
  struct UNetWords {
    std::shared_ptr<const UNetText> text;
    at::Tensor vector;  ///< pooled text and sizes; undefined for a family that takes none
  };
  struct UNetRunState final : RunState {
    std::vector<UNetWords> texts;
    at::Tensor channels;
  };

  struct Context {
    at::Tensor states;
    bool operator==(const Context& other) const { return states.is_same(other.states); }
  };

  std::shared_ptr<const UNetText> words_of(const at::Tensor& context, const Ops& ops) {
    if (std::shared_ptr<const UNetText> known = known_.find({context})) return known;
    auto out = std::make_shared<const UNetText>(model_.text(context, ops));
    known_.add({context}, out);
    return out;
  }

  at::Tensor vector(const RunConditioning& text, const RunFacts& facts) const {
    if (family_.size_values == 0) return {};
    const at::Tensor& pooled = text.conditioning->pooled;
    if (!family_.aesthetic) return sdxl_vector(pooled, facts.height, facts.width);
    return sdxl_refiner_vector(pooled, facts.height, facts.width,
                               text.negative ? kNegativeAesthetic : kPositiveAesthetic);
  }

  const FamilyRow& family_;
  UNet model_;
  at::Device device_;
  bool begins_;  ///< has the first block
  WeakCache<Context, const UNetText> known_;
};

}  // namespace

std::unique_ptr<DiffusionShard> load_unet_shard(const FamilyRow& family, const UNetSizes& sizes, const Weights& weights,
                                                const HeldBlocks& held) {
  return std::make_unique<UNetShard>(family, sizes, weights, held);
}

}  // namespace mgpu
