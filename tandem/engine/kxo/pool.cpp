// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/detail/pool.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem::engine::kxo::detail {

void ReadyList::push_back(User& user) noexcept {
  user.previous = last_;
  user.next = nullptr;
  (last_ == nullptr ? first_ : last_->next) = &user;
  last_ = &user;
}

void ReadyList::erase(User& user) noexcept {
  (user.previous == nullptr ? first_ : user.previous->next) = user.next;
  (user.next == nullptr ? last_ : user.next->previous) = user.previous;
}

User& ReadyList::pop_front() noexcept {
  User& user = *first_;
  erase(user);
  return user;
}

Pool::~Pool() {
  std::vector<pthread_t> threads;
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    threads.swap(threads_);
  }
  changed_.notify_all();
  for (const pthread_t thread : threads) ::pthread_join(thread, nullptr);
  preparations_.reset();
  const MutexLock lock(mutex_);
  while (round_first_ != nullptr) {  // what is in the round keeps itself
    const auto last = std::move(round_first_->active);
    round_first_ = last->next;
  }
}

Result<void> Pool::admit() {
  const MutexLock lock(mutex_);
  timers_.reserve(users_ + 1);
  threads_.reserve(static_cast<std::size_t>(wanted_));
  while (threads_.size() < static_cast<std::size_t>(wanted_)) {
    pthread_t thread;
    if (const int error = start_background_thread(thread, "kxo", 0, &thread_main, this)) {
      if (threads_.empty()) return errno_error(error);
      break;  // fewer will do
    }
    threads_.push_back(thread);
  }
  ++users_;
  return {};
}

bool Pool::prepare(const Preparations::Tenant& tenant, std::uint8_t player,
                   const tandem::kxo::Rules& rules) {
  if (!preparations_ || !agents_->needs_preparation(player)) return true;
  return preparations_->announce(tenant, player, rules);
}

void Pool::dismiss() {
  const MutexLock lock(mutex_);
  --users_;
}

void* Pool::thread_main(void* pool) {
  static_cast<Pool*>(pool)->work();
  return nullptr;
}

void Pool::make_ready_locked(User& user) {
  Account& account = user.account();
  user.place = User::Place::kReady;
  account.ready.push_back(user);
  if (account.active == nullptr) {
    account.active = account.shared_from_this();
    account.next = nullptr;
    (round_last_ == nullptr ? round_first_ : round_last_->next) = &account;
    round_last_ = &account;
  }
}

void Pool::kick(User& user) {
  if (wanted_ == 0) return;
  {
    const MutexLock lock(mutex_);
    switch (user.place) {
      case User::Place::kRunning:
        user.kicked = true;
        return;
      case User::Place::kReady:
      case User::Place::kRemoved:
        return;
      case User::Place::kTimed:
        timers_.erase(user);
        break;
      case User::Place::kUnprepared:
        unprepared_.erase(user);
        break;
      case User::Place::kIdle:
        break;
    }
    make_ready_locked(user);
    if (sleepers_ == 0) return;
  }
  changed_.notify_one();
}

void Pool::remove(User& user) {
  const MutexLock lock(mutex_);
  switch (std::exchange(user.place, User::Place::kRemoved)) {
    case User::Place::kReady:
      // An account without users stays in the round until its turn comes.
      user.account().ready.erase(user);
      break;
    case User::Place::kTimed:
      timers_.erase(user);
      break;
    case User::Place::kUnprepared:
      unprepared_.erase(user);
      break;
    default:
      break;
  }
}

/// The next user to run: of the tenant at the front, as long as it has credit.
User* Pool::next_locked() {
  const auto now = Clock::now();
  while (!timers_.empty() && timers_.first().due <= now) {
    User& user = timers_.first();
    timers_.erase(user);
    make_ready_locked(user);
  }
  while (round_first_ != nullptr) {
    Account& account = *round_first_;
    const bool out = account.ready.empty();
    if (!out && account.credit.count() > 0) {
      User& user = account.ready.pop_front();
      user.place = User::Place::kRunning;
      user.kicked = false;
      return &user;
    }
    round_first_ = account.next;
    if (round_first_ == nullptr) round_last_ = nullptr;
    if (out) {
      // Credit is not saved up; debts stay.
      account.credit = std::min(account.credit, std::chrono::nanoseconds(0));
      const auto last = std::move(account.active);
      continue;
    }
    account.credit += kQuantum;
    account.next = nullptr;
    (round_last_ == nullptr ? round_first_ : round_last_->next) = &account;
    round_last_ = &account;
  }
  return nullptr;
}

/// `prepared`: how often something had been when the user was taken up.
void Pool::settle_locked(User& user, User::Step step, Clock::time_point due,
                         std::uint64_t prepared) {
  if (user.place != User::Place::kRunning) return;  // removed
  const bool unprepared = step == User::Step::kUnprepared;
  if (step == User::Step::kMoved || user.kicked || (unprepared && prepared != prepared_)) {
    make_ready_locked(user);
  } else if (unprepared) {
    user.place = User::Place::kUnprepared;
    unprepared_.push_back(user);
  } else if (step == User::Step::kLater) {
    user.place = User::Place::kTimed;
    user.due = due;
    timers_.insert(user);
  } else {
    user.place = User::Place::kIdle;
  }
}

void Pool::look_again() {
  {
    const MutexLock lock(mutex_);
    ++prepared_;
    while (!unprepared_.empty()) make_ready_locked(unprepared_.pop_front());
  }
  changed_.notify_all();
}

/// Lets a user move, not for long: others of its tenant wait.
User::Step Pool::run(User& user, AgentCache& agents, int most, Clock::time_point& due) try {
  const auto end = Clock::now() + kQuantum;
  for (int i = 1;; ++i) {
    const User::Step step = user.step(agents, due);
    if (step != User::Step::kMoved || i == most || Clock::now() >= end) return step;
  }
} catch (const std::bad_alloc&) {
  due = Clock::now() + kMemoryAgain;
  return User::Step::kLater;
}

void Pool::work() {
  AgentCache agents(agents_, &*preparations_);
  static const bool early = planted_fault("kxo-early-free");
  for (;;) {
    User* user = nullptr;
    std::uint64_t prepared = 0;
    {
      const MutexLock lock(mutex_);
      while (!stop_ && (user = next_locked()) == nullptr) {
        ++sleepers_;
        if (timers_.empty()) {
          changed_.wait(mutex_);
        } else {
          changed_.wait_until(mutex_, Clock::time_point(timers_.first().due));
        }
        --sleepers_;
      }
      if (stop_) return;
      prepared = prepared_;
      // In a list, so not removed: the table's reference is there.
      if (!early) TANDEM_CHECK(user->try_acquire());
    }
    const UserRef running(early ? nullptr : user);
    const auto start = Clock::now();
    Clock::time_point due;
    const User::Step step = run(*user, agents, kBurst, due);
    const auto took = Clock::now() - start;
    const MutexLock lock(mutex_);
    Account& account = user->account();
    account.credit =
        std::max<std::chrono::nanoseconds>(account.credit - took, -kQuantum * kMostDebt);
    settle_locked(*user, step, due, prepared);
  }
}

std::chrono::nanoseconds Pool::run_here(User& user, AgentCache& agents) {
  if (wanted_ != 0) {
    kick(user);
    return {};
  }
  Clock::time_point due;
  if (run(user, agents, kBurstHere, due) != User::Step::kLater) return {};
  return std::max<std::chrono::nanoseconds>(due - Clock::now(), std::chrono::nanoseconds(1));
}

}  // namespace tandem::engine::kxo::detail
