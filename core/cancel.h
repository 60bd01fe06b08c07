#pragma once

#include <atomic>

namespace mgpu {

/// Thrown between pieces of work once the program was asked to end. It is not a failure: pictures that it ends are
/// skipped, not failed, and whoever catches everything passes it on.
struct Interrupted {};

/// The signal that asked the program to end, 0 while none has. A signal handler may set it. Whoever runs between two
/// pieces of work asks, so that the program ends within two seconds: see also stop_point() (core/stop_point.h).
inline std::atomic<int> stop_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

inline bool is_stop_requested() {
  return stop_signal.load(std::memory_order_relaxed) != 0;
}

/// Throws Interrupted once the program was asked to end.
inline void stop_if_requested() {
  if (is_stop_requested()) throw Interrupted{};
}

}  // namespace mgpu
