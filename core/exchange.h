#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <future>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace mgpu {

/// Several threads ("ranks"), one a device, that show each other tensors as they go: every rank calls show() equally
/// often and waits there for the others. No rank waits for another's GPU: copies are queued behind what they copy.
class Exchange {
 public:
  /// A rank was waiting, or came, after another had left: the other's failure is the one to tell.
  class Broken {};

  explicit Exchange(std::size_t ranks);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  std::size_t ranks() const { return ranks_; }

  /// What the ranks showed in one round. To be used until the rank's next call of show().
  class Round {
   public:
    /// Tensor number `index` of a rank, as a copy on the device of `own`; the rank's own as it is. Undefined tensors
    /// stay undefined.
    at::Tensor take(std::size_t rank, std::size_t index, const at::Tensor& own) const;

   private:
    friend class Exchange;
    struct Shown;
    const std::vector<std::unique_ptr<Shown>>* shown_ = nullptr;
    std::size_t self_ = 0;
  };
  /// Shows the others a rank's tensors, all on one device and not written to again, and returns what all ranks show.
  Round show(std::size_t rank, std::vector<at::Tensor> tensors);

  /// The rank goes and will not come again: the others throw Broken.
  void leave();

 private:
  const std::size_t ranks_;
  std::mutex mutex_;
  std::condition_variable all_came_;
  std::array<std::vector<std::unique_ptr<Round::Shown>>, 2> rounds_;  // who is through with one may begin the next
  std::vector<std::size_t> calls_;                                    // of show(), by rank
  std::size_t came_ = 0;                                              // of all ranks
  bool broken_ = false;
};

/// Waits for the work of all ranks, and throws what failed: Exchange::Broken only if nothing else did.
void finish(std::span<std::future<void>> ranks);

}  // namespace mgpu
