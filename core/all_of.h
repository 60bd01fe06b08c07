#pragma once

#include <future>
#include <utility>
#include <vector>

namespace mgpu {

/// Works of several threads at the same time. Declared behind what they refer to, it waits for all of them before that
/// goes, whatever is thrown meanwhile.
class AllOf {
 public:
  AllOf() = default;
  ~AllOf() { wait(); }
  AllOf(const AllOf&) = delete;
  AllOf& operator=(const AllOf&) = delete;

  /// `begin` begins one, and returns its future.
  template <class Begin>
  void add(const Begin& begin) {
    works_.emplace_back();  // first: what has begun is waited for
    works_.back() = begin();
  }

  /// Waits for all, then throws what the first one that failed threw.
  void finish() {
    wait();
    for (std::future<void>& work : std::exchange(works_, {})) work.get();
  }

 private:
  void wait() const {
    for (const std::future<void>& work : works_)
      if (work.valid()) work.wait();
  }

  std::vector<std::future<void>> works_;
};

}  // namespace mgpu
