// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/detail/preparations.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "tandem/base/background_thread.hpp"

namespace tandem::engine::kxo::detail {

Preparations::~Preparations() {
  std::optional<pthread_t> thread;
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    thread = std::exchange(thread_, std::nullopt);
  }
  changed_.notify_all();
  if (thread) ::pthread_join(*thread, nullptr);
}

std::optional<Preparations::Thing> Preparations::find(std::uint8_t player,
                                                      const tandem::kxo::Rules& rules) {
  const Need need{player, rules};
  {
    const MutexLock lock(mutex_);
    for (const Kept& kept : kept_) {
      if (kept.need == need) return kept.thing;
    }
    if (start_locked()) {
      if (std::find(wanted_.begin(), wanted_.end(), need) == wanted_.end()) {
        wanted_.push_back(need);
        changed_.notify_one();
      }
      return std::nullopt;
    }
  }
  return make(need);
}

bool Preparations::start_locked() {
  if (thread_) return true;
  pthread_t thread;
  if (start_background_thread(thread, "kxo-prepare", 0, &thread_main, this) != 0) return false;
  thread_ = thread;
  return true;
}

void* Preparations::thread_main(void* self) {
  static_cast<Preparations*>(self)->work();
  return nullptr;
}

/// Where there is not enough memory the agent will say so.
Preparations::Thing Preparations::make(const Need& need) const {
  try {
    return source_->prepare(need.player, need.rules);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void Preparations::work() {
  for (;;) {
    std::optional<Need> need;
    {
      const MutexLock lock(mutex_);
      while (!stop_ && wanted_.empty()) changed_.wait(mutex_);
      if (stop_) return;
      need = wanted_.front();
    }
    Thing thing = make(*need);
    std::vector<Kept> old;  // to be freed without the lock
    {
      const MutexLock lock(mutex_);
      wanted_.erase(wanted_.begin());
      if (kept_.size() == kMost) {
        old.push_back(std::move(kept_.front()));
        kept_.erase(kept_.begin());
      }
      kept_.push_back({std::move(*need), std::move(thing)});
    }
    done_();
  }
}

}  // namespace tandem::engine::kxo::detail
