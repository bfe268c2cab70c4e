// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/detail/preparations.hpp"

#include <algorithm>
#include <cerrno>
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

std::optional<Result<Preparations::Thing>> Preparations::find(std::uint8_t player,
                                                              const tandem::kxo::Rules& rules,
                                                              Waiting& waiting) {
  const Need need{player, rules};
  const Waiting waited = std::exchange(waiting, nullptr);
  {
    const MutexLock lock(mutex_);
    for (const Kept& kept : kept_) {
      if (kept.need == need) return kept.thing;
    }
    const bool same = waited != nullptr && waited->need == need;
    if (same && waited->answer) return waited->answer;
    // What was made may have given way to others since: then it is made again.
    if (start_locked()) {
      waiting = attempt_locked(need);
      return std::nullopt;
    }
  }
  return make(need);
}

/// The one that others wait for already, or a new one.
Preparations::Waiting Preparations::attempt_locked(const Need& need) {
  const auto at = std::find_if(wanted_.begin(), wanted_.end(),
                               [&](const auto& attempt) { return attempt->need == need; });
  if (at != wanted_.end()) return *at;
  wanted_.push_back(std::make_shared<Attempt>(Attempt{need}));
  changed_.notify_one();
  return wanted_.back();
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

Result<Preparations::Thing> Preparations::make(const Need& need) const {
  try {
    return source_->prepare(need.player, need.rules);
  } catch (const std::bad_alloc&) {
    return errno_error(ENOMEM);
  }
}

void Preparations::work() {
  for (;;) {
    std::shared_ptr<Attempt> attempt;
    {
      const MutexLock lock(mutex_);
      while (!stop_ && wanted_.empty()) changed_.wait(mutex_);
      if (stop_) return;
      attempt = wanted_.front();
    }
    Result<Thing> made = make(attempt->need);
    std::vector<Kept> old;  // to be freed without the lock
    {
      const MutexLock lock(mutex_);
      wanted_.erase(wanted_.begin());
      if (!made || *made == nullptr) {
        attempt->answer = std::move(made);
      } else {
        if (kept_.size() == kMost) {
          old.push_back(std::move(kept_.front()));
          kept_.erase(kept_.begin());
        }
        kept_.push_back({attempt->need, std::move(*made)});
      }
    }
    done_();
  }
}

}  // namespace tandem::engine::kxo::detail
