#pragma once

#include <functional>
#include <string_view>

namespace mgpu {

// Empty but in tests, which set them while nothing runs. They are called from many threads; what they throw is a
// failure there.

/// With the name of every place where work passes from one owner to the next.
inline std::function<void(std::string_view place)> fault_hook;
/// Before every allocation of main memory by LibTorch.
inline std::function<void()> allocation_hook;
/// Before every call of ours that asks a device for something, its memory or its queue, on a virtual device too.
inline std::function<void()> device_call_hook;

inline void fault_point(std::string_view place) {
  if (fault_hook) [[unlikely]]
    fault_hook(place);
}

inline void device_call() {
  if (device_call_hook) [[unlikely]]
    device_call_hook();
}

}  // namespace mgpu
