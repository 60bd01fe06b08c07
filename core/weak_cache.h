#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace mgpu {

/// Values that are found again by their keys as long as somebody uses them. For one thread; who uses a value may let go
/// of it in any.
template <class Key, class Value>
class WeakCache {
 public:
  /// Null where nobody has it.
  std::shared_ptr<Value> find(const Key& key) {
    std::erase_if(values_, [](const auto& entry) { return entry.second.expired(); });
    const auto found = std::ranges::find_if(values_, [&](const auto& entry) { return entry.first == key; });
    return found == values_.end() ? nullptr : found->second.lock();
  }

  void add(Key key, const std::shared_ptr<Value>& value) { values_.emplace_back(std::move(key), value); }

 private:
  std::vector<std::pair<Key, std::weak_ptr<Value>>> values_;
};

}  // namespace mgpu
