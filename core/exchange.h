#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "core/joint_work.h"

namespace mgpu {

/// Several threads ("ranks"), one a device, that show each other tensors as they go: every rank calls show() equally
/// often and waits there for the others. No rank waits for another's GPU: copies are queued behind what they copy. A
/// failure of the work that it belongs to, which outlives it, ends the waiting.
class Exchange {
 public:
  Exchange(std::size_t ranks, JointWork& work);
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
  /// Throws JointWork::Broken where another rank of the work has failed.
  Round show(std::size_t rank, std::vector<at::Tensor> tensors);

 private:
  const std::size_t ranks_;
  JointWork& work_;                                                   ///< its lock is held over what follows
  std::array<std::vector<std::unique_ptr<Round::Shown>>, 2> rounds_;  // who is through with one may begin the next
  std::vector<std::size_t> calls_;                                    // of show(), by rank
  std::size_t came_ = 0;                                              // of all ranks
};

}  // namespace mgpu
