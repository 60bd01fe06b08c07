#include "shard/loan.h"

#include <algorithm>
#include <numeric>

namespace mgpu {

Loan spread_loan(std::span<const std::uint64_t> blocks, std::span<const DonorShare> shares) {
  Loan loan;
  const auto total = static_cast<double>(std::accumulate(blocks.begin(), blocks.end(), std::uint64_t{0}));
  // Every holder, the device itself last, is owed its part of each block; whoever is owed most takes it.
  std::vector<double> parts;
  for (const DonorShare& share : shares) parts.push_back(total > 0.0 ? share.bytes / total : 0.0);
  parts.push_back(std::max(0.0, 1.0 - std::accumulate(parts.begin(), parts.end(), 0.0)));
  std::vector<double> owed(parts.size(), 0.0);
  std::uint64_t largest = 0;
  for (const std::uint64_t block : blocks) {
    for (std::size_t i = 0; i < owed.size(); ++i) owed[i] += parts[i] * static_cast<double>(block);
    const auto taker = static_cast<std::size_t>(std::ranges::max_element(owed) - owed.begin());
    owed[taker] -= static_cast<double>(block);
    const bool own = taker == shares.size();
    loan.donor.push_back(own ? std::nullopt : std::optional(shares[taker].donor));
    if (own) continue;
    loan.bytes += block;
    largest = std::max(largest, block);
  }
  loan.ring = kRingSlots * largest;
  return loan;
}

Loan loan_that_frees(std::span<const std::uint64_t> blocks, const DeviceId& donor, std::uint64_t bytes) {
  const auto total = static_cast<double>(std::accumulate(blocks.begin(), blocks.end(), std::uint64_t{0}));
  const auto count = static_cast<int>(blocks.size());
  Loan most;
  for (int lent = 1; lent <= count; ++lent) {
    const DonorShare share{donor, total * lent / count};
    Loan loan = spread_loan(blocks, {&share, 1});
    if (loan.freed() >= bytes) return loan;
    if (loan.freed() > most.freed()) most = std::move(loan);
  }
  return most;
}

}  // namespace mgpu
