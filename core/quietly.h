#pragma once

#include <utility>

namespace mgpu {

/// Runs what a destructor would like to have done and what may fail, as everything that asks a GPU may once that is
/// lost: the failure is swallowed. In the flow of things calls are checked, so that a lost device is noticed there.
template <class Work>
void quietly(Work&& work) noexcept {
  try {
    std::forward<Work>(work)();
  } catch (...) {  // whoever uses the device next is told
  }
}

}  // namespace mgpu
