// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <utility>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::kxo::detail {

/// Things that are costly to make and never change: who asks for one that somebody still has gets
/// that one.
/// Thread safety: any thread. Who asks for one that is being made waits for it, and nobody else.
template <class Key, class T>
class SharedCache {
 public:
  /// One that is never destroyed: at exit a thread may still be making something for it.
  static SharedCache& for_ever() { return *new SharedCache; }

  /// `make()` gives a Result whose value is a shared pointer; an error, or what it throws, is not
  /// remembered: the next one who asks, or who waited, tries again.
  template <class Make>
  auto get(const Key& key, Make make) -> decltype(make()) {
    if (auto there = find_or_begin(key)) return there;
    std::shared_ptr<const T> thing;
    const End end{*this, key, thing};
    auto made = make();
    if (made) thing = *made;
    return made;
  }

  /// For tests: so many wait for what another one makes.
  int waiting() {
    const MutexLock lock(mutex_);
    return waiting_;
  }

 private:
  struct Entry {
    Key key;
    bool being_made = true;
    std::weak_ptr<const T> thing{};
  };
  /// Whatever became of it.
  struct End {
    SharedCache& cache;
    const Key& key;
    const std::shared_ptr<const T>& thing;
    ~End() { cache.end(key, thing); }
  };

  /// What somebody has; or nothing, and then who asked makes it.
  std::shared_ptr<const T> find_or_begin(const Key& key) {
    static const bool nobody_waits = planted_fault("kxo-cache-nobody-waits");
    const MutexLock lock(mutex_);
    for (;;) {
      std::erase_if(entries_,
                    [](const Entry& entry) { return !entry.being_made && entry.thing.expired(); });
      const auto at = find_locked(key);
      if (at == entries_.end() || (nobody_waits && at->being_made)) {
        entries_.push_back({key});
        return nullptr;
      }
      if (at->being_made) {
        ++waiting_;
        made_.wait(mutex_);
        --waiting_;
      } else if (auto thing = at->thing.lock()) {
        return thing;
      }
    }
  }
  void end(const Key& key, const std::shared_ptr<const T>& thing) {
    {
      const MutexLock lock(mutex_);
      const auto at = find_locked(key);
      at->being_made = false;
      at->thing = thing;
    }
    made_.notify_all();
  }
  auto find_locked(const Key& key) TANDEM_REQUIRES(mutex_) {
    return std::find_if(entries_.begin(), entries_.end(),
                        [&](const Entry& entry) { return entry.key == key; });
  }

  Mutex mutex_;
  std::condition_variable_any made_;
  int waiting_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::vector<Entry> entries_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::kxo::detail
