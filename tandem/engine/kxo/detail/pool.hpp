// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/engine/kxo/detail/preparations.hpp"
#include "tandem/engine/kxo/detail/timer_heap.hpp"
#include "tandem/engine/kxo/detail/user.hpp"

namespace tandem::engine::kxo::detail {

/// Threads that let agents move. A user is one work item: it stands in one list, or in the timer
/// heap, or a thread has it, or it waits for somebody and is nowhere. Where its agent is not
/// prepared it stands aside until something more is.
///
/// Fairness: tenants take turns. One may go on until its credit is used up, kQuantum of time a
/// round; a longer move is paid for with the rounds after it. Its users go first come first served.
/// Thread safety: any thread.
class Pool {
 public:
  /// `preparations`: what one tenant may wait for at a time.
  Pool(int threads, std::shared_ptr<const AgentSource> agents, std::size_t preparations)
      : wanted_(threads), agents_(std::move(agents)) {
    if (wanted_ != 0) preparations_.emplace(agents_, preparations, [this] { look_again(); });
  }
  /// Waits for the moves that are being thought about.
  ~Pool();

  /// Makes room for a user, and starts the threads with the first one.
  /// Errors: std::bad_alloc, and nothing is changed; EAGAIN no thread can be started.
  Result<void> admit();
  /// The room of a user that was removed, or never kicked.
  void dismiss();

  /// Has what `player` needs prepared, where that takes long.
  /// Returns: false when the tenant waits for too much. Errors: std::bad_alloc.
  bool prepare(const Preparations::Tenant& tenant, std::uint8_t player,
               const tandem::kxo::Rules& rules);
  /// Something changed: the user may have a move to make. Not with User's or Owner's mutex held.
  void kick(User& user);
  /// From now on no thread takes it up.
  void remove(User& user);
  /// Without threads: lets the user's agents move here, for a while.
  /// Returns: when the next move is due; zero: as soon as somebody asks again.
  std::chrono::nanoseconds run_here(User& user, AgentCache& agents);

 private:
  static constexpr std::chrono::microseconds kQuantum{200};
  static constexpr int kMostDebt = 64;  // in quanta
  static constexpr int kBurst = 32;     // moves of one user in a row
  static constexpr int kBurstHere = 256;
  /// When a user is asked again for which there was no memory.
  static constexpr std::chrono::milliseconds kMemoryAgain{10};

  static void* thread_main(void* pool);
  void work();
  User* next_locked() TANDEM_REQUIRES(mutex_);
  void make_ready_locked(User& user) TANDEM_REQUIRES(mutex_);
  void settle_locked(User& user, User::Step step, Clock::time_point due, std::uint64_t prepared)
      TANDEM_REQUIRES(mutex_);
  /// More is prepared than was.
  void look_again();
  static User::Step run(User& user, AgentCache& agents, int most, Clock::time_point& due);

  const int wanted_;
  const std::shared_ptr<const AgentSource> agents_;
  Mutex mutex_;
  std::condition_variable_any changed_;
  bool stop_ TANDEM_GUARDED_BY(mutex_) = false;
  int sleepers_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::size_t users_ TANDEM_GUARDED_BY(mutex_) = 0;
  TimerHeap timers_ TANDEM_GUARDED_BY(mutex_);
  Account* round_first_ TANDEM_GUARDED_BY(mutex_) = nullptr;
  Account* round_last_ TANDEM_GUARDED_BY(mutex_) = nullptr;
  ReadyList unprepared_ TANDEM_GUARDED_BY(mutex_);        // users whose agents are not prepared
  std::uint64_t prepared_ TANDEM_GUARDED_BY(mutex_) = 0;  // so often was something
  std::vector<pthread_t> threads_ TANDEM_GUARDED_BY(mutex_);
  std::optional<Preparations> preparations_;  // where there are threads
};

}  // namespace tandem::engine::kxo::detail
