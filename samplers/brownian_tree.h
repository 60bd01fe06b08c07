#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace mgpu {

/// numpy's SeedSequence (O'Neill's seed_seq): `count` words from an entropy and a spawn key, mixed in a pool of
/// `pool_size` words.
std::vector<std::uint32_t> seed_sequence(std::uint64_t entropy, std::span<const std::uint64_t> spawn_key,
                                         std::size_t pool_size, std::size_t count);

/// The Brownian path of torchsde.BrownianTree: the same entropy gives the same path whatever is asked of it, and
/// increments add up. Intervals are halved until they end where a question does, times rounded to 6 decimals; each
/// midpoint is drawn from a generator of its own, seeded by the node's place in the tree.
/// Reference: Li et al. 2020, "Scalable gradients for stochastic differential equations", section 4; torchsde 0.2.6.
class BrownianTree {
 public:
  using Randn = std::function<at::Tensor(std::uint64_t seed)>;

  /// The path over [start, end]; `randn` draws standard normal noise of the path's shape.
  BrownianTree(double start, double end, std::uint64_t entropy, Randn randn);
  ~BrownianTree();

  /// The path at `to` less the path at `from`, from <= to; times outside the range count as its ends.
  at::Tensor increment(double from, double to);

 private:
  struct Node;

  void split(Node& node, double at);
  void collect(Node& node, double from, double to, std::vector<Node*>& intervals);
  at::Tensor increment_of(Node& node);

  std::uint64_t entropy_;
  Randn randn_;
  std::unique_ptr<Node> root_;
  std::deque<Node*> kept_;  ///< nodes whose increment is in memory, the oldest first
};

}  // namespace mgpu
