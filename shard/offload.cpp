#include "shard/offload.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace mgpu {
namespace {

std::uint64_t bytes_of(std::span<const OffloadableBlock> blocks) {
  return std::transform_reduce(blocks.begin(), blocks.end(), std::uint64_t{0}, std::plus<>(),
                               [](const OffloadableBlock& block) { return block.bytes; });
}

/// So many bytes in all, dealt to the blocks in proportion to their times, but to none more than it has.
std::vector<double> dealt_by_time(std::span<const OffloadableBlock> blocks, double bytes) {
  std::vector<double> out(blocks.size());
  std::vector<bool> is_full(blocks.size());
  for (bool is_new = true; is_new;) {
    double left = bytes, time = 0.0;
    for (std::size_t i = 0; i < blocks.size(); ++i) (is_full[i] ? left : time) += is_full[i] ? -out[i] : blocks[i].time;
    is_new = false;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (is_full[i]) continue;
      const auto most = static_cast<double>(blocks[i].bytes);
      const double share = time > 0.0 ? std::max(0.0, left) * blocks[i].time / time : 0.0;
      out[i] = std::min(share, most);
      is_new = is_new || share > most;
      is_full[i] = share > most;
    }
  }
  return out;
}

/// All blocks up to some size: a larger one, lent too, would ask for a larger ring.
OffloadedBlocks offload_that_frees_most(std::span<const OffloadableBlock> blocks, const DeviceId& donor) {
  std::map<std::uint64_t, std::uint64_t> bytes_of_size;
  for (const OffloadableBlock& block : blocks) bytes_of_size[block.bytes] += block.bytes;
  OffloadedBlocks most;
  std::uint64_t up_to = 0, offloaded = 0;
  for (const auto& [size, bytes] : bytes_of_size) {
    offloaded += bytes;
    const OffloadedBlocks offload{.bytes = offloaded, .ring = kRingSlots * size};
    if (offload.freed() > most.freed()) most = offload, up_to = size;
  }
  if (most.bytes == 0) return most;
  for (const OffloadableBlock& block : blocks)
    most.donor.push_back(block.bytes <= up_to ? std::optional(donor) : std::nullopt);
  return most;
}

}  // namespace

OffloadedBlocks spread_offload(std::span<const OffloadableBlock> blocks, std::span<const DonorShare> shares) {
  OffloadedBlocks offload;
  double wanted = 0.0;
  for (const DonorShare& share : shares) wanted += share.bytes;
  const std::vector<double> dealt = dealt_by_time(blocks, std::min(wanted, static_cast<double>(bytes_of(blocks))));
  // Every holder, the device itself last, is owed its part of each block; whoever is owed most takes it.
  std::vector<double> owed(shares.size() + 1, 0.0);
  std::uint64_t largest = 0;
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    const auto bytes = static_cast<double>(blocks[block].bytes);
    for (std::size_t i = 0; i < shares.size() && wanted > 0.0; ++i) owed[i] += dealt[block] * shares[i].bytes / wanted;
    owed.back() += bytes - dealt[block];
    const auto taker = static_cast<std::size_t>(std::ranges::max_element(owed) - owed.begin());
    owed[taker] -= bytes;
    const bool own = taker == shares.size();
    offload.donor.push_back(own ? std::nullopt : std::optional(shares[taker].donor));
    if (own) continue;
    offload.bytes += blocks[block].bytes;
    largest = std::max(largest, blocks[block].bytes);
  }
  offload.ring = kRingSlots * largest;
  return offload;
}

OffloadChoices::OffloadChoices(std::vector<OffloadableBlock> blocks, const DeviceId& donor)
    : blocks_(std::move(blocks)), donor_(donor), most_(offload_that_frees_most(blocks_, donor)) {
  const std::uint64_t total = bytes_of(blocks_), count = blocks_.size();
  std::vector<Size> all;
  for (std::uint64_t offloaded = 1; offloaded <= count; ++offloaded) {
    const std::uint64_t wanted = std::max<std::uint64_t>(1, total * offloaded / count);
    const DonorShare share{donor_, static_cast<double>(wanted)};
    const OffloadedBlocks offload = spread_offload(blocks_, {&share, 1});
    if (offload.freed() > 0) all.push_back({offload.bytes, offload.ring, wanted});
  }
  std::ranges::sort(all, [](const Size& a, const Size& b) {
    return a.freed() != b.freed() ? a.freed() > b.freed() : a.bytes < b.bytes;
  });
  for (const Size& size : all)
    if (sizes_.empty() || size.bytes < sizes_.back().bytes) sizes_.push_back(size);
  std::ranges::reverse(sizes_);
}

OffloadChoices::Size OffloadChoices::that_frees(std::uint64_t bytes) const {
  const Size most{most_.bytes, most_.ring, 0};
  if (most.freed() <= bytes) return most;
  const auto least = std::ranges::lower_bound(sizes_, bytes, {}, &Size::freed);
  return least == sizes_.end() ? most : *least;
}

OffloadedBlocks OffloadChoices::offload(const Size& size) const {
  if (size.wanted == 0) return most_;
  const DonorShare share{donor_, static_cast<double>(size.wanted)};
  return spread_offload(blocks_, {&share, 1});
}

OffloadedBlocks offload_that_frees(std::span<const OffloadableBlock> blocks, const DeviceId& donor,
                                   std::uint64_t bytes) {
  const OffloadChoices choices({blocks.begin(), blocks.end()}, donor);
  return choices.offload(choices.that_frees(bytes));
}

}  // namespace mgpu
