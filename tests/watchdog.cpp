#include "tests/watchdog.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace mgpu::test {

Watchdog::Watchdog(std::string what, int seconds) : what_(std::move(what)) {
  thread_ = std::thread([this, seconds] { watch(seconds); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Watchdog::sees(std::string what) {
  {
    const std::lock_guard lock(mutex_);
    what_ = std::move(what);
    ++seen_;
  }
  changed_.notify_one();
}

void Watchdog::watch(int seconds) {
  std::unique_lock lock(mutex_);
  while (!over_) {
    const int before = seen_;
    if (changed_.wait_for(lock, std::chrono::seconds(seconds), [&] { return over_ || seen_ != before; })) continue;
    std::fprintf(stderr, "the test hangs: %s\n", what_.c_str());
    std::fflush(stderr);
    std::_Exit(1);
  }
}

}  // namespace mgpu::test
