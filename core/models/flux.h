#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/models/flux_sizes.h"
#include "core/models/held_blocks.h"
#include "core/nn.h"
#include "core/ops.h"
#include "core/weights.h"

namespace mgpu {

/// What one evaluation of Flux is conditioned on.
struct FluxCondition {
  at::Tensor context;     ///< [1, n, context_dim]: T5's hidden states
  at::Tensor pooled;      ///< [1, vector_dim]: CLIP-L's pooled output
  double guidance = 3.5;  ///< distilled guidance; ignored by models without it
};

/// Shift, scale and gate of every block for n steps: what depends on sigma, guidance and the pooled text alone, never
/// on the image.
struct FluxModulation {
  std::vector<at::Tensor>
      image;  ///< a double block each, [n, 1, 6 hidden]: (shift, scale, gate) of attention, then of the MLP
  std::vector<at::Tensor> text;    ///< likewise
  std::vector<at::Tensor> single;  ///< a single block each, [n, 1, 3 hidden]
  at::Tensor last;                 ///< [n, 1, 2 hidden]: shift, scale

  /// The same with each tensor that is there changed.
  template <class Change>
  FluxModulation changed(const Change& change) const {
    FluxModulation out = *this;
    for (std::vector<at::Tensor>* kind : {&out.image, &out.text, &out.single})
      for (at::Tensor& rows : *kind)
        if (rows.defined()) rows = change(rows);
    if (last.defined()) out.last = change(last);
    return out;
  }
  /// That of one of the steps: n = 1, the same memory.
  FluxModulation step(std::int64_t index) const {
    return changed([index](const at::Tensor& rows) { return rows.narrow(0, index, 1); });
  }
};

/// Steps at these noise levels, so conditioned.
struct FluxSteps {
  std::span<const double> sigmas;
  FluxCondition condition;
};

/// What travels from block to block, and so from device to device. Through the double blocks image and text are apart;
/// from the first single block on, `image` holds both, text first, and `text` is undefined.
struct FluxState {
  at::Tensor image;                     ///< [1, image tokens, hidden], later [1, text + image tokens, hidden]
  at::Tensor text;                      ///< [1, text tokens, hidden]
  const RotaryTable* rotary = nullptr;  ///< of text and image tokens together
  const FluxModulation* modulation = nullptr;
  std::int64_t text_tokens = 0;
  std::int64_t rows = 0, columns = 0;  ///< of 2x2 patches

  /// What moves along when the next block is another device's; `rotary` and `modulation` are that device's own.
  std::vector<at::Tensor*> travelling() { return {&image, &text}; }
};

/// Flux.1, the rectified-flow transformer of Black Forest Labs: https://github.com/black-forest-labs/flux (model.py).
/// Predicts the velocity noise - latent.
class Flux {
 public:
  /// Loads every tensor. Throws Error naming file and tensor where one is missing.
  Flux(const FluxSizes& sizes, const Weights& weights);
  /// Loads some of the blocks, and what computes their modulation. Only these may run.
  Flux(const FluxSizes& sizes, const Weights& weights, const HeldBlocks& held);

  const FluxSizes& sizes() const { return sizes_; }

  /// What is made of a computed tensor, which several have a part of: a copy elsewhere.
  using Keep = std::function<at::Tensor(const at::Tensor&)>;
  /// The modulation vectors of all steps of each of these, computed before the blocks run: one reading of their weights
  /// (a quarter of the model) serves them all. Of blocks that are not held it stays undefined.
  std::vector<FluxModulation> modulate(std::span<const FluxSteps> all, const Ops& ops, const Keep& keep) const;
  /// Of one, kept as it is.
  FluxModulation modulate(const FluxSteps& steps, const Ops& ops) const;

  /// The positions of a state's tokens as its blocks turn by them: the same for every step.
  RotaryTable rotary(const FluxState& state) const;

  /// Embeds patches and text. x [1, 16, h, w] with h and w even. The caller sets the state's rotary table and
  /// modulation.
  FluxState begin(const at::Tensor& x, const FluxCondition& condition, const Ops& ops) const;
  /// Runs block `index` of block_count(): the double blocks first, then the single ones.
  void block(int index, FluxState& state, const Ops& ops) const;
  int block_count() const { return sizes_.depth + sizes_.depth_single; }
  /// The tensors that block() reads, of a block that is held: for whoever streams it.
  std::vector<at::Tensor*> block_tensors(int index);
  /// The velocity [1, 16, h, w].
  at::Tensor finish(const FluxState& state, const Ops& ops) const;

  /// All of the above: one evaluation. The result is in x's type; the model computes in its weights'.
  at::Tensor forward(const at::Tensor& x, double sigma, const FluxCondition& condition, const Ops& ops) const;

 private:
  struct Mlp {
    Linear in, out;
  };
  struct Stream {  ///< one modality's half of a double block
    Linear qkv, proj;
    at::Tensor q_norm, k_norm;
    Mlp mlp;
    PrecomputedLinear modulation;
  };
  struct DoubleBlock {
    Stream image, text;
  };
  struct SingleBlock {
    Linear in, out;
    at::Tensor q_norm, k_norm;
    PrecomputedLinear modulation;
  };

  static Mlp load_mlp(const Weights& weights, const char* in, const char* out);
  static Stream load_stream(const BlockWeights& block, const std::string& name);
  static SingleBlock load_single(const BlockWeights& block);

  /// [steps, hidden]: what modulation is a product of.
  at::Tensor modulation_input(const FluxSteps& steps, const Ops& ops) const;
  void run(const DoubleBlock& block, std::size_t index, FluxState& state, const Ops& ops) const;
  void run(const SingleBlock& block, std::size_t index, FluxState& state, const Ops& ops) const;

  FluxSizes sizes_;
  at::ScalarType dtype_;
  at::Device device_;
  Linear image_in_, text_in_, last_modulation_, last_;  ///< undefined where stem or head is not held
  Mlp time_in_, vector_in_, guidance_in_;
  std::vector<std::optional<DoubleBlock>> doubles_;
  std::vector<std::optional<SingleBlock>> singles_;
};

}  // namespace mgpu
