// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace tandem::rcu {

class rcu_domain;

/// What a domain has done in this process. Counts since it was first used; never reset.
struct domain_stats {
  std::uint64_t grace_periods = 0;   ///< driven to their end, also on behalf of others
  std::uint64_t expedited = 0;       ///< calls of rcu_synchronize_expedited()
  std::uint64_t fences_skipped = 0;  ///< looks at the readers without a fence on other threads
  std::uint64_t waits = 0;           ///< times that a grace period slept for a reader
  std::uint64_t boosts = 0;          ///< readers that ran at a real-time priority meanwhile
  std::uint64_t stalls = 0;          ///< reports of a stalled grace period
  std::uint64_t callbacks = 0;       ///< deleters and functions that were run
  std::uint64_t throttled = 0;       ///< times that a thread was made to wait
  std::uint64_t overflowed = 0;      ///< objects queued without memory for a chunk
  std::uint64_t worker_wakes = 0;    ///< times that a worker was woken
  std::uint64_t waiting_words = 0;   ///< queued now, without each thread's last few hundred: 1
                                     ///< for an object that embeds a head, 2 or 3 for others
  std::uint64_t waiting_bytes = 0;   ///< of these
  std::uint64_t readers = 0;         ///< threads registered now
  bool light_readers = false;        ///< readers execute no fence: membarrier() does, always so far
};

/// A snapshot; its counts are of slightly different moments.
///
/// Thread safety: any thread.
domain_stats stats(rcu_domain& dom) noexcept;

namespace detail {

/// Relaxed counters behind domain_stats.
struct Counters {
  using Count = std::atomic<std::uint64_t>;
  Count grace_periods{0}, expedited{0}, fences_skipped{0}, waits{0}, boosts{0}, stalls{0},
      throttled{0}, overflowed{0}, worker_wakes{0};
  static void add(Count& count, std::uint64_t more = 1) noexcept {
    count.fetch_add(more, std::memory_order_relaxed);
  }
};

}  // namespace detail

}  // namespace tandem::rcu
