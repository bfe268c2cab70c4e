// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/detail/preparations.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <new>
#include <utility>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::engine::kxo::detail {

Preparations::Preparations(std::shared_ptr<const AgentSource> source, std::size_t most,
                           std::function<void()> done)
    : source_(std::move(source)), most_(most), done_(std::move(done)) {
  kept_.reserve(kMost);  // its thread allocates nothing
}

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

bool Preparations::announce(const Tenant& tenant, std::uint8_t player,
                            const tandem::kxo::Rules& rules) {
  const Need need{player, rules};
  const MutexLock lock(mutex_);
  return kept_locked(need) != nullptr || !start_locked() || attempt_locked(tenant, need) != nullptr;
}

std::optional<Result<Preparations::Thing>> Preparations::find(const Tenant& tenant,
                                                              std::uint8_t player,
                                                              const tandem::kxo::Rules& rules,
                                                              Waiting& waiting) {
  const Need need{player, rules};
  const Waiting waited = std::exchange(waiting, nullptr);  // and freed without the lock
  {
    const MutexLock lock(mutex_);
    if (const Kept* const kept = kept_locked(need)) return kept->thing;
    if (waited != nullptr && waited->need == need) {
      if (!waited->answer) waiting = waited;
      return waited->answer;
    }
    if (start_locked()) {
      // Too many others: there is room for it once one of them is over.
      waiting = attempt_locked(tenant, need);
      return std::nullopt;
    }
  }
  return make(need);
}

const Preparations::Kept* Preparations::kept_locked(const Need& need) const {
  const auto at =
      std::find_if(kept_.begin(), kept_.end(), [&](const Kept& kept) { return kept.need == need; });
  return at == kept_.end() ? nullptr : &*at;
}

/// The one that the tenant waits for already, or that others do, or a new one; nullptr: it waits
/// for too many.
Preparations::Waiting Preparations::attempt_locked(const Tenant& tenant, const Need& need) {
  const auto find_in = [&](const Line& of) {
    const auto at = std::find_if(of.wanted.begin(), of.wanted.end(),
                                 [&](const auto& attempt) { return attempt->need == need; });
    return at == of.wanted.end() ? nullptr : *at;
  };
  auto line = std::find_if(lines_.begin(), lines_.end(),
                           [&](const Line& of) { return of.tenant == tenant; });
  if (line != lines_.end()) {
    if (auto known = find_in(*line)) return known;
    if (line->wanted.size() >= most_) return nullptr;
  }
  std::shared_ptr<Attempt> attempt;
  for (auto of = lines_.begin(); of != lines_.end() && attempt == nullptr; ++of) {
    attempt = find_in(*of);
  }
  if (attempt == nullptr) attempt = std::make_shared<Attempt>(need);
  if (line == lines_.end()) {
    std::vector<std::shared_ptr<Attempt>> wanted;
    wanted.reserve(most_);
    line = lines_.insert(lines_.end(), Line{tenant, std::move(wanted)});
  }
  line->wanted.push_back(attempt);
  changed_.notify_one();
  return attempt;
}

/// The first one of the tenant whose turn it is; it stays in the lines until it is over.
std::shared_ptr<Preparations::Attempt> Preparations::next_locked() {
  static const bool first_come = planted_fault("kxo-prepare-first-come");
  auto next = lines_.front().wanted.front();
  if (!first_come) lines_.splice(lines_.end(), lines_, lines_.begin());
  return next;
}

/// Returns: what is kept no longer, to be freed without the lock.
Preparations::Thing Preparations::end_locked(Attempt& attempt, Result<Thing> made) {
  for (auto line = lines_.begin(); line != lines_.end();) {
    std::erase_if(line->wanted, [&](const auto& wanted) { return wanted.get() == &attempt; });
    line = line->wanted.empty() ? lines_.erase(line) : std::next(line);
  }
  Thing old;
  if (made && *made != nullptr) {
    if (kept_.size() == kMost) {
      old = std::move(kept_.front().thing);
      kept_.erase(kept_.begin());
    }
    kept_.push_back({attempt.need, *made});
  }
  attempt.answer = std::move(made);
  return old;
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
      while (!stop_ && lines_.empty()) changed_.wait(mutex_);
      if (stop_) return;
      attempt = next_locked();
    }
    Result<Thing> made = make(attempt->need);
    Thing old;
    {
      const MutexLock lock(mutex_);
      old = end_locked(*attempt, std::move(made));
    }
    old.reset();
    done_();
  }
}

}  // namespace tandem::engine::kxo::detail
