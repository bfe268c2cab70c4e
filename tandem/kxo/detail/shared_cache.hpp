// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "tandem/base/mutex.hpp"

namespace tandem::kxo::detail {

/// Things that are costly to make and never change: who asks for one that somebody still has gets
/// that one.
/// Thread safety: any thread; who asks waits for one that is being made.
template <class Key, class T>
class SharedCache {
 public:
  /// `make()` gives a Result whose value is a shared pointer; an error is not remembered.
  template <class Make>
  auto get(const Key& key, Make make) -> decltype(make()) {
    const MutexLock lock(mutex_);
    std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
    for (const auto& [other, weak] : known_) {
      std::shared_ptr<const T> thing = weak.lock();
      if (thing != nullptr && other == key) return thing;
    }
    auto made = make();
    if (made) known_.emplace_back(key, *made);
    return made;
  }

 private:
  Mutex mutex_;
  std::vector<std::pair<Key, std::weak_ptr<const T>>> known_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::kxo::detail
