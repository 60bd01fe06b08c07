#pragma once

#include <chrono>

namespace mgpu {

using Clock = std::chrono::steady_clock;

inline double seconds(Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

inline double seconds_since(Clock::time_point start) {
  return seconds(Clock::now() - start);
}

}  // namespace mgpu
