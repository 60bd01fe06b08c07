#include "samplers/brownian_tree.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include "core/error.h"

namespace mgpu {
namespace {

/// Rounds to 6 decimals by the decimal expansion, as Python's round does.
double rounded(double time) {
  std::string text = fmt::format("{:.6f}", time);
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

void append_words(std::vector<std::uint32_t>& words, std::uint64_t value) {
  words.push_back(static_cast<std::uint32_t>(value));
  if (value >> 32 != 0) words.push_back(static_cast<std::uint32_t>(value >> 32));
}

constexpr std::size_t pool_size = 24;     // BrownianTree's default
constexpr std::size_t kept_at_most = 64;  // two paths from the root to the depth that 6 decimals allow

}  // namespace

std::vector<std::uint32_t> seed_sequence(std::uint64_t entropy, std::span<const std::uint64_t> spawn_key,
                                         std::size_t pool_words, std::size_t count) {
  std::vector<std::uint32_t> words;
  append_words(words, entropy);
  if (!spawn_key.empty()) words.resize(std::max(words.size(), pool_words), 0);
  for (std::uint64_t key : spawn_key) append_words(words, key);

  std::uint32_t multiplier = 0x43b0d7e5u;
  auto hash = [&multiplier](std::uint32_t value, std::uint32_t factor) {
    value ^= multiplier;
    multiplier *= factor;
    value *= multiplier;
    return value ^ (value >> 16);
  };
  auto mix = [](std::uint32_t x, std::uint32_t y) {
    std::uint32_t value = 0xca01f9ddu * x - 0x4973f715u * y;
    return value ^ (value >> 16);
  };
  constexpr std::uint32_t mixing = 0x931e8875u, output = 0x58f38dedu;
  std::vector<std::uint32_t> pool(pool_words);
  for (std::size_t i = 0; i < pool_words; ++i) pool[i] = hash(i < words.size() ? words[i] : 0, mixing);
  for (std::size_t from = 0; from < pool_words; ++from)
    for (std::size_t to = 0; to < pool_words; ++to)
      if (from != to) pool[to] = mix(pool[to], hash(pool[from], mixing));
  for (std::size_t from = pool_words; from < words.size(); ++from)
    for (std::uint32_t& word : pool) word = mix(word, hash(words[from], mixing));

  multiplier = 0x8b51f9ddu;
  std::vector<std::uint32_t> state(count);
  for (std::size_t i = 0; i < count; ++i) state[i] = hash(pool[i % pool_words], output);
  return state;
}

struct BrownianTree::Node {
  double start = 0, end = 0, middle = 0;
  Node* parent = nullptr;
  bool is_left = false;
  std::uint64_t key = 0, depth = 0;
  std::uint64_t seed = 0;  ///< of the noise at the middle, once split
  std::unique_ptr<Node> left, right;
  at::Tensor increment;  ///< kept for a while
};

BrownianTree::BrownianTree(double start, double end, std::uint64_t entropy, Randn randn)
    : entropy_(entropy), randn_(std::move(randn)), root_(std::make_unique<Node>()) {
  MGPU_CHECK(start <= end, "{} > {}", start, end);
  root_->start = rounded(start);
  root_->end = rounded(end);
  root_->increment = randn_(seed_sequence(entropy, {}, pool_size, 1)[0]) * std::sqrt(end - start);
}

BrownianTree::~BrownianTree() = default;

void BrownianTree::split(Node& node, double at) {
  double middle = 0.5 * (node.end + node.start);
  node.middle = rounded(middle);
  node.seed = seed_sequence(entropy_, std::array{node.key, node.depth}, pool_size, 1)[0];
  auto child = [&](bool is_left) {
    auto made = std::make_unique<Node>();
    made->start = is_left ? node.start : node.middle;
    made->end = is_left ? node.middle : node.end;
    made->parent = &node;
    made->is_left = is_left;
    made->key = 2 * node.key + (is_left ? 0 : 1);
    made->depth = node.depth + 1;
    return made;
  };
  node.left = child(true);
  node.right = child(false);
  if (at > node.middle) split(*node.right, at);
  if (at < node.middle) split(*node.left, at);
}

void BrownianTree::collect(Node& node, double from, double to, std::vector<Node*>& intervals) {
  if (from == node.start && to == node.end) {
    intervals.push_back(&node);
    return;
  }
  if (!node.left) split(node, from == node.start ? to : from);
  if (from < node.middle) collect(*node.left, from, std::min(to, node.middle), intervals);
  if (to > node.middle) collect(*node.right, std::max(from, node.middle), to, intervals);
}

at::Tensor BrownianTree::increment_of(Node& node) {
  if (node.increment.defined()) return node.increment;
  const Node& parent = *node.parent;
  at::Tensor whole = increment_of(*node.parent);
  double reciprocal = 1 / (parent.end - parent.start);
  double left = parent.middle - parent.start, right = parent.end - parent.middle;
  at::Tensor first = left * whole * reciprocal + std::sqrt(left * right * reciprocal) * randn_(parent.seed);
  node.increment = node.is_left ? first : whole - first;
  kept_.push_back(&node);
  if (kept_.size() > kept_at_most) {
    kept_.front()->increment.reset();
    kept_.pop_front();
  }
  return node.increment;
}

at::Tensor BrownianTree::increment(double from, double to) {
  from = rounded(std::clamp(from, root_->start, root_->end));
  to = rounded(std::clamp(to, root_->start, root_->end));
  MGPU_CHECK(from <= to, "{} > {}", from, to);
  if (from == to) return at::zeros_like(root_->increment);
  std::vector<Node*> intervals;
  collect(*root_, from, to, intervals);
  at::Tensor sum = increment_of(*intervals[0]);
  for (Node* interval : std::span(intervals).subspan(1)) sum = sum + increment_of(*interval);
  return sum;
}

}  // namespace mgpu
