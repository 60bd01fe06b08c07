#include "shard/loan.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

namespace mgpu {
namespace {

std::uint64_t bytes_of(std::span<const LendableBlock> blocks) {
  return std::transform_reduce(blocks.begin(), blocks.end(), std::uint64_t{0}, std::plus<>(),
                               [](const LendableBlock& block) { return block.bytes; });
}

/// So many bytes in all, dealt to the blocks in proportion to their times, but to none more than it has.
std::vector<double> dealt_by_time(std::span<const LendableBlock> blocks, double bytes) {
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
Loan loan_that_frees_most(std::span<const LendableBlock> blocks, const DeviceId& donor) {
  std::map<std::uint64_t, std::uint64_t> bytes_of_size;
  for (const LendableBlock& block : blocks) bytes_of_size[block.bytes] += block.bytes;
  Loan most;
  std::uint64_t up_to = 0, lent = 0;
  for (const auto& [size, bytes] : bytes_of_size) {
    lent += bytes;
    const Loan loan{.bytes = lent, .ring = kRingSlots * size};
    if (loan.freed() > most.freed()) most = loan, up_to = size;
  }
  if (most.bytes == 0) return most;
  for (const LendableBlock& block : blocks)
    most.donor.push_back(block.bytes <= up_to ? std::optional(donor) : std::nullopt);
  return most;
}

}  // namespace

Loan spread_loan(std::span<const LendableBlock> blocks, std::span<const DonorShare> shares) {
  Loan loan;
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
    loan.donor.push_back(own ? std::nullopt : std::optional(shares[taker].donor));
    if (own) continue;
    loan.bytes += blocks[block].bytes;
    largest = std::max(largest, blocks[block].bytes);
  }
  loan.ring = kRingSlots * largest;
  return loan;
}

Loan loan_that_frees(std::span<const LendableBlock> blocks, const DeviceId& donor, std::uint64_t bytes) {
  Loan most = loan_that_frees_most(blocks, donor);
  if (most.freed() <= bytes) return most;
  std::uint64_t largest = 0, least = std::numeric_limits<std::uint64_t>::max();
  for (const LendableBlock& block : blocks) {
    largest = std::max(largest, block.bytes);
    least = std::min(least, block.bytes);
  }
  const std::uint64_t total = bytes_of(blocks), count = blocks.size();
  for (std::uint64_t lent = 1; lent <= count; ++lent) {
    const std::uint64_t wanted = total * lent / count;
    // A loan comes to what is wanted within a block, and its ring takes some.
    if (wanted + largest < bytes + kRingSlots * least) continue;
    const DonorShare share{donor, static_cast<double>(wanted)};
    Loan loan = spread_loan(blocks, {&share, 1});
    if (loan.freed() >= bytes) return loan;
  }
  return most;
}

}  // namespace mgpu
