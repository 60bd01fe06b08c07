#pragma once

#include <functional>
#include <string_view>

namespace mgpu {

/// Called with the name of every place where work passes from one owner to the next, from many threads; what it throws
/// is a failure there. Empty but in tests, which set it while nothing runs.
inline std::function<void(std::string_view place)> fault_hook;

/// Such a place.
inline void fault_point(std::string_view place) {
  if (fault_hook) [[unlikely]]
    fault_hook(place);
}

}  // namespace mgpu
