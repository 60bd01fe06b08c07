#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "shard/pipeline.h"

// What pipeline.cpp and pipeline_turns.cpp share.

namespace mgpu {

/// An evaluation on its way through the blocks.
struct Pipeline::Pass {
  std::optional<Slot> slot;  ///< while it is on its way: given back last, once what it holds has gone
  std::shared_ptr<Run> run;
  at::Tensor x;
  QueueMark x_given;
  double timestep = 0.0;
  std::size_t text = 0;
  std::unique_ptr<DiffusionPass> state;
  std::uint64_t came = 0;   ///< when to the stage before which it waits: numbers in order
  std::vector<int> blocks;  ///< executed, by member
  std::promise<at::Tensor> result;
  std::atomic<bool> has_result = false;  ///< the first one counts

  /// Before the result is there: tasks that are just ending hold the pass a little longer than who waits for it.
  void let_go() {
    state.reset();
    run.reset();
    x.reset();
  }
};

/// See Pipeline::post().
class Pipeline::Task {
 public:
  explicit Task(Pipeline& pipeline) : pipeline_(pipeline) {
    const std::lock_guard lock(pipeline_.mutex_);
    ++pipeline_.tasks_;
  }
  ~Task() {
    const std::lock_guard lock(pipeline_.mutex_);  // as Slot's
    --pipeline_.tasks_;
    pipeline_.pass_ends_.notify_all();
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

 private:
  Pipeline& pipeline_;
};

}  // namespace mgpu
