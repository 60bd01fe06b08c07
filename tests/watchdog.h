#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace mgpu::test {

/// Ends the program with a message where a test hangs: nobody said anything for so long. Generous, for busy machines
/// and sanitizers.
class Watchdog {
 public:
  explicit Watchdog(std::string what, int seconds = 180);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// The test goes on, with this.
  void sees(std::string what);

 private:
  void watch(int seconds);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string what_;
  int seen_ = 0;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace mgpu::test
