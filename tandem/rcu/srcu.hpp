// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/base/rseq.hpp"
#include "tandem/rcu/callback_head.hpp"
#include "tandem/rcu/detail/callback_worker.hpp"
#include "tandem/rcu/detail/reader.hpp"
#include "tandem/rcu/detail/srcu.hpp"
#include "tandem/rcu/gp_state.hpp"

namespace tandem::rcu {

/// Sleepable RCU: a set of readers that may block, and whose sections hold up nobody else's grace
/// periods.
///
///     srcu_domain domain;
///     {
///       const srcu_section section(domain);
///       wait_for_disk(*table.load(std::memory_order_acquire));
///     }
///     domain.retire(table.exchange(fresh, std::memory_order_acq_rel));
///
/// How it works. A section adds 1 to a counter of the CPU on entry and to another on exit, by
/// restartable sequences: no atomic instruction, no line that CPUs share, no registration of
/// threads. A grace period adds the counters up until as many exits as entries are there. Two
/// sets of counters let it end although readers keep coming: it turns new ones to the other set.
///
/// Memory:  size_bytes(): 64 bytes for each CPU that is present, and a fixed part. Nothing per
///          thread. The first call(), retire() or start_worker() adds a queue and a
///          thread.
/// Fork:    a child may use the domain at once. Sections that the forking thread has open go on;
///          those of other threads do not exist in the child. Callbacks queued before the fork are
///          the parent's. Grace periods named before the fork can be polled in the child. It has no
///          worker until it calls call(), retire() or start_worker(). A child made by the raw
///          system call must call lock() or synchronize() on its first thread before others use a
///          domain in which that thread has a section open.
/// Thread exit: does not matter outside sections. A section that a thread has open when it ends
///          stays open for ever: a grace period waits, and reader_count() tells.
/// Lifetime: destroyed after the last call on it has returned, also unlock(). The destructor checks
///          that no section is open, and runs what is queued.
///
/// Spec: Linux kernel documentation, "RCU API", Sleepable RCU; "A Tour Through RCU's Requirements",
///       "Sleepable RCU".
class srcu_domain {
 public:
  /// Errors: std::bad_alloc.
  srcu_domain();
  srcu_domain(const srcu_domain&) = delete;
  srcu_domain& operator=(const srcu_domain&) = delete;
  ~srcu_domain();

  // Readers.

  /// Enters a section. Nests; never blocks. Returns: the token that unlock() wants, 0 or 1.
  ///
  /// Thread safety: any thread and signal handler. Allocates nothing; for each 170 domains beyond
  ///                eight in which the thread has sections at once it maps a page, until its end.
  /// Ordering:      (A) the count is visible before any load in the section; pairs with the fence
  ///                (F) of a grace period.
  int lock() noexcept;
  /// Leaves the section that gave `token`, on the thread that entered it (checked). Sections may
  /// end in any order; each that overlaps another is waited for on its own.
  ///
  /// Ordering: (C) the count releases every access of the section; pairs with the sums of a grace
  ///           period. (D) it is visible before the load of `wake_`; pairs with (F).
  void unlock(int token) noexcept;

  // Grace periods.

  /// Returns once every section that began before the call has ended.
  ///
  /// Units:         about 0.5 µs without running threads, else an inter-processor interrupt and the
  ///                rest of the longest section. Concurrent callers share grace periods. Looks for
  ///                some 10 µs, then sleeps.
  /// Thread safety: any thread outside sections of this domain (checked).
  /// Ordering:      what happened before the call is visible to sections that it does not wait for;
  ///                the ends of the others happen before its return.
  void synchronize() noexcept;
  /// As synchronize(), but looks for some 300 µs before it sleeps.
  void synchronize_expedited() noexcept;

  /// Names a grace period that begins after the call. Does not start one.
  ///
  /// Thread safety: any thread and signal handler; no lock, no allocation.
  gp_state get_state() noexcept {
    // Not a load: who starts the next grace period synchronizes with it.
    return {started_.fetch_add(0, std::memory_order_acq_rel) + 1};
  }
  /// As get_state(), and sees to it that the grace period happens.
  ///
  /// With a worker (start_worker(), or the first call() or retire() of the process) it does so at
  /// once, on the worker. Without one, calls of poll_state() carry it on, and anybody's
  /// synchronize(). Thread safety: any thread and signal handler; no lock, no allocation.
  gp_state start_poll() noexcept;
  /// Whether the grace period is over. If so, the ends of its sections happen before the return.
  ///
  /// Units:         at most 5 ns; if the process has no worker and start_poll() named it, a step of
  ///                a grace period (a membarrier call or a look at the counters).
  /// Thread safety: any thread and signal handler; takes no lock that it would have to wait for,
  ///                allocates nothing.
  bool poll_state(gp_state state) noexcept {
    return completed_.load(std::memory_order_acquire) >= state.value || poll_slowly(state.value);
  }
  /// Returns once the grace period is over; waits as synchronize() does, but not for a longer one.
  void cond_synchronize(gp_state state) noexcept;
  void cond_synchronize_expedited(gp_state state) noexcept;

  // Callbacks.

  /// Has `run(&head)` called once every section that began before the call has ended.
  ///
  /// Callbacks run one after the other in the order of their call, on the domain's worker or on a
  /// thread in barrier(). They may use the domain: lock, synchronize, call() and retire(), also of
  /// their own head, and barrier(), which then waits for all but the callbacks on its own stack.
  /// What they hold up is other callbacks and started polls, not synchronize().
  ///
  /// Thread safety: any thread, inside or outside sections; not a signal handler. Past 65536
  ///                waiting callbacks a call outside this domain's sections and callbacks sleeps up
  ///                to 1 ms. Where no thread can be started, such a call runs them itself.
  void call(callback_head& head, void (*run)(callback_head*) noexcept) noexcept;
  /// Has `d(p)` called likewise. Errors: std::bad_alloc; then nothing is scheduled.
  template <class T, class D = std::default_delete<T>>
  void retire(T* p, D d = D());
  /// Returns once every callback of calls before this one has returned. May run callbacks itself.
  ///
  /// Thread safety: as synchronize(), and without locks that a callback takes.
  void barrier() noexcept;
  /// Starts the domain's thread, so that a start_poll() in a signal handler needs no polls to be
  /// carried on. Returns: whether it runs.
  ///
  /// Thread safety: any thread; not a signal handler.
  bool start_worker() noexcept;

  // What there is to know.

  /// The sections open in this process now; a guess while threads enter and leave. A grace period
  /// that does not end while it stays above 0 has a reader that sleeps long, or ended in a section.
  std::uint64_t reader_count() const noexcept;
  /// Bytes of one domain, itself included: a fixed part and 64 for each CPU that is present.
  static std::size_t size_bytes() noexcept;
  /// Whether readers count by restartable sequences, and not by atomic additions.
  bool uses_rseq() const noexcept { return rseq_cpus_ != 0; }

 private:
  friend struct SrcuTestAccess;
  friend struct SrcuForkHook;

  // Readers: srcu_reader.cpp.

  void enter(unsigned index) noexcept;
  void count_open(unsigned index) noexcept;
  void count_open_slowly(unsigned index) noexcept;
  void count_closed_slowly(unsigned index) noexcept;
  std::uint32_t sections_here() const noexcept;
  void add_shared(std::atomic<std::uint64_t>& of_cpu_0) noexcept;
  void wake_waiters(unsigned index) noexcept;
  /// After a fork, makes the domain this process's.
  void refresh() noexcept;
  /// Returns: false when another thread is at it.
  bool try_refresh(std::uint64_t generation) noexcept;

  // Grace periods: srcu.cpp.

  bool drained(unsigned index) const noexcept;
  bool step() noexcept TANDEM_REQUIRES(grace_);
  void run_grace_period(int spins) noexcept TANDEM_REQUIRES(grace_);
  bool sleep_for_readers(std::chrono::milliseconds limit) noexcept TANDEM_REQUIRES(grace_);
  void release_grace() noexcept TANDEM_RELEASE(grace_);
  void wait_for(std::uint64_t number, int spins) noexcept TANDEM_EXCLUDES(grace_);
  bool poll_slowly(std::uint64_t number) noexcept;
  void queue_poll() noexcept;

  // Readers read it; a grace period that has to wait writes it.
  alignas(kCacheLine) std::atomic<std::uint64_t> generation_;  // of the process it counts for
  const std::uint32_t cpus_;                                   // present_cpus()
  const std::uint32_t rseq_cpus_;  // cpus_, or 0 where readers count by atomic additions
  // One for each of cpus_, and one for additions that must be atomic.
  const std::unique_ptr<detail::SrcuSlot[]> slots_;
  std::atomic<std::uint32_t> index_{0};      // which counters new sections use
  std::atomic<std::uint32_t> wake_[2] = {};  // a sleeping grace period sets; unlock() clears

  // Grace periods are numbered from 1.
  alignas(kCacheLine) std::atomic<std::uint64_t> started_{0};  // by the holder of grace_
  std::atomic<std::uint64_t> completed_{0};                    // by the holder of grace_
  std::atomic<std::uint64_t> requested_{0};                    // by start_poll()
  std::uint64_t number_ TANDEM_GUARDED_BY(grace_) = 0;         // of the one that is under way
  bool under_way_ TANDEM_GUARDED_BY(grace_) = false;
  bool flipped_ TANDEM_GUARDED_BY(grace_) = false;
  std::uint32_t drained_ TANDEM_GUARDED_BY(grace_) = 0;  // a bit for each index
  std::atomic<bool> poll_queued_{false};                 // poll_head_ is in callbacks_
  std::atomic<std::uint32_t> released_{0};               // futex: counts releases of grace_
  std::atomic<std::uint32_t> waiters_{0};                // threads that sleep on released_
  std::atomic<std::uint32_t> moved_{0};  // futex: a section that someone waited for has ended
  detail::Role grace_;

  struct PollHead : callback_head {
    srcu_domain* domain = nullptr;
  };
  alignas(kCacheLine) PollHead poll_head_;
  detail::CallbackWorker callbacks_;
};

/// A section of `domain` for a scope.
class [[nodiscard]] srcu_section {
 public:
  explicit srcu_section(srcu_domain& domain) noexcept : domain_(domain), token_(domain.lock()) {}
  srcu_section(const srcu_section&) = delete;
  srcu_section& operator=(const srcu_section&) = delete;
  ~srcu_section() { domain_.unlock(token_); }

 private:
  srcu_domain& domain_;
  const int token_;
};

template <class T, class D>
void srcu_domain::retire(T* p, D d) {
  struct Scheduled : callback_head {
    Scheduled(T* object, D&& deleter) : object_(object), deleter_(std::move(deleter)) {}
    T* object_;
    [[no_unique_address]] D deleter_;
  };
  call(*new Scheduled(p, std::move(d)), [](callback_head* head) noexcept {
    const std::unique_ptr<Scheduled> self(static_cast<Scheduled*>(head));
    self->deleter_(self->object_);
  });
}

TANDEM_RCU_READER_PATH inline void srcu_domain::count_open(unsigned index) noexcept {
  detail::OpenSections& first = detail::here(detail::thread_sections.entries);
  add_on_this_thread(first.counts[index].opened,
                     1);  // from here on no signal handler takes the entry for another domain
  light_fence();
  if (first.domain != this) [[unlikely]] {
    add_on_this_thread(first.counts[index].opened, ~0u);
    count_open_slowly(index);
  }
}

TANDEM_RCU_READER_PATH inline void srcu_domain::enter(unsigned index) noexcept {
  count_open(index);
  std::atomic<std::uint64_t>& count = slots_[0].locks[index];
  if (!rseq_add<6>(&count, 1, rseq_cpus_)) [[unlikely]]
    add_shared(count);
  if (!detail::kInstrumented && detail::light_readers.load(std::memory_order_relaxed)) [[likely]] {
    light_fence();  // (A)
  } else {
    full_fence();  // (A)
  }
}

TANDEM_RCU_READER_PATH inline int srcu_domain::lock() noexcept {
  if (generation_.load(std::memory_order_acquire) !=
      detail::process.generation.load(std::memory_order_relaxed)) [[unlikely]] {
    refresh();
  }
  const std::uint32_t index = index_.load(std::memory_order_relaxed);
  enter(index);
  return static_cast<int>(index);
}

TANDEM_RCU_READER_PATH inline void srcu_domain::unlock(int token) noexcept {
  const unsigned index = static_cast<unsigned>(token) & 1;
  detail::OpenSections& first = detail::here(detail::thread_sections.entries);
  if (first.domain == this && first.surely_open(index)) [[likely]] {
    add_on_this_thread(first.counts[index].closed, 1);
  } else {
    count_closed_slowly(index);
  }
  std::atomic<std::uint64_t>& count = slots_[0].unlocks[index];
  if (!rseq_add<6>(&count, 1, rseq_cpus_)) [[unlikely]]
    add_shared(count);  // (C)
  light_fence();        // (D)
  if (wake_[index].load(std::memory_order_relaxed) != 0) [[unlikely]]
    wake_waiters(index);
}

}  // namespace tandem::rcu
