// SPDX-License-Identifier: Apache-2.0
// Readers of sleepable domains beside the inline path: where they count, what they have open, and
// what a forked child makes of it.
#include <sched.h>

#include <climits>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/srcu.hpp"

namespace tandem::rcu {

namespace detail {
constinit thread_local ThreadSections thread_sections;
}

namespace {

using detail::OpenSections;
using detail::thread_sections;

/// Marks a domain that a thread of the process with the rest of the bits makes its own: who finds
/// the mark of another process need not wait for that thread.
constexpr std::uint64_t kRefreshing = std::uint64_t{1} << 63;

template <class Visit>
void for_each_open(Visit visit) {
  for (OpenSections& entry : thread_sections.entries) {
    if (entry.any()) visit(entry);
  }
  for (OpenSections* entry = thread_sections.more; entry; entry = entry->next) visit(*entry);
}

}  // namespace

struct SrcuForkHook {
  /// In the child, on the thread that forked: what it has open goes on.
  static void run() {
    for_each_open([](OpenSections& entry) { entry.domain->refresh(); });
  }
};

srcu_domain::srcu_domain()
    : generation_(detail::current_generation()),
      cpus_(present_cpus()),
      rseq_cpus_(rseq_available() ? cpus_ : 0),
      slots_(std::make_unique<detail::SrcuSlot[]>(cpus_ + 1)),
      callbacks_(
          "tandem-srcu",
          [](void* domain) noexcept { static_cast<srcu_domain*>(domain)->synchronize(); }, this) {
  poll_head_.domain = this;
  poll_head_.run = [](callback_head* head) noexcept {
    srcu_domain& self = *static_cast<PollHead*>(head)->domain;
    self.poll_queued_.store(false, std::memory_order_seq_cst);  // (I)
    if (self.requested_.load(std::memory_order_seq_cst) >       // (I)
        self.completed_.load(std::memory_order_acquire)) {
      self.queue_poll();
    }
  };
  detail::at_fork_child(SrcuForkHook::run);
}

srcu_domain::~srcu_domain() {
  refresh();
  // First the callbacks, which may have sections of their own, and queue others.
  callbacks_.drain();
  TANDEM_CHECK(reader_count() == 0);
}

std::size_t srcu_domain::size_bytes() noexcept {
  return sizeof(srcu_domain) + (present_cpus() + 1) * sizeof(detail::SrcuSlot);
}

/// Where the processor's own counter cannot be had: all readers of the domain count by atomic
/// additions, or those of one thread do, which is not registered or on a CPU that came later. The
/// latter must not meet a restartable sequence in one counter: they have a slot of their own.
void srcu_domain::add_shared(std::atomic<std::uint64_t>& of_cpu_0) noexcept {
  std::uint32_t slot = cpus_;
  if (rseq_cpus_ == 0) {
    const int cpu = ::sched_getcpu();
    if (cpu >= 0 && static_cast<std::uint32_t>(cpu) < cpus_) slot = static_cast<std::uint32_t>(cpu);
  }
  auto* const count = reinterpret_cast<std::atomic<std::uint64_t>*>(
      reinterpret_cast<char*>(&of_cpu_0) + slot * sizeof(detail::SrcuSlot));
  count->fetch_add(1,
                   detail::kInstrumented ? std::memory_order_seq_cst : std::memory_order_release);
}

void srcu_domain::count_open_slowly(unsigned index) noexcept {
  auto& mine = detail::here(&thread_sections);
  for (std::uint32_t i = 0; i < mine.kInline; ++i) {
    OpenSections& entry = mine.entries[i];
    if (entry.domain != this || !entry.any()) continue;
    add_on_this_thread(entry.opened[index], 1);
    return;
  }
  for (OpenSections* entry = mine.more; entry; entry = entry->next) {
    if (entry->domain != this) continue;
    add_on_this_thread(entry->opened[index], 1);
    return;
  }
  for (std::uint32_t i = 0; i < mine.kInline; ++i) {
    OpenSections& entry = mine.entries[i];
    if (entry.any()) continue;
    add_on_this_thread(entry.opened[index], 1);
    light_fence();
    entry.domain = this;
    return;
  }
  auto* const further = new OpenSections{this, {}, {}, mine.more};
  add_on_this_thread(further->opened[index], 1);
  light_fence();
  mine.more = further;
}

void srcu_domain::count_closed_slowly(unsigned index) noexcept {
  auto& mine = detail::here(&thread_sections);
  for (std::uint32_t i = 0; i < mine.kInline; ++i) {
    OpenSections& entry = mine.entries[i];
    if (entry.domain != this || entry.open(index) == 0) continue;
    add_on_this_thread(entry.closed[index], 1);
    return;
  }
  for (OpenSections** link = &mine.more; *link; link = &(*link)->next) {
    OpenSections* const entry = *link;
    if (entry->domain != this || entry->open(index) == 0) continue;
    add_on_this_thread(entry->closed[index], 1);
    if (!entry->any()) {
      *link = entry->next;
      delete entry;
    }
    return;
  }
  constexpr bool kThisThreadHasItOpen = false;
  TANDEM_CHECK(kThisThreadHasItOpen);
}

std::uint32_t srcu_domain::sections_here() const noexcept {
  std::uint32_t sections = 0;
  for_each_open([&](const OpenSections& entry) {
    if (entry.domain == this) sections += entry.open(0) + entry.open(1);
  });
  return sections;
}

void srcu_domain::wake_waiters(unsigned index) noexcept {
  // Cleared before `moved_` changes: who sets it again has read the new value and waits on that.
  wake_[index].store(0, std::memory_order_release);
  moved_.fetch_add(1, std::memory_order_acq_rel);
  futex_wake(moved_, INT_MAX);
}

void srcu_domain::refresh() noexcept {
  const std::uint64_t generation = detail::current_generation();
  while (!try_refresh(generation)) ::sched_yield();
}

/// The numbers of grace periods go on, so that those named before the fork still mean something. A
/// grace period that was under way is nobody's; the next one has a higher number.
bool srcu_domain::try_refresh(std::uint64_t generation) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  std::uint64_t seen = generation_.load(std::memory_order_acquire);
  if (seen == generation) return true;
  if (seen == (generation | kRefreshing)) return false;
  const SignalsBlocked blocked;  // a handler would wait for the thread that it interrupts
  if (!generation_.compare_exchange_strong(seen, generation | kRefreshing,
                                           std::memory_order_acq_rel)) {
    return seen == generation;
  }
  for (std::uint32_t slot = 0; slot <= cpus_; ++slot) {
    for (unsigned index = 0; index < 2; ++index) {
      slots_[slot].locks[index].store(0, std::memory_order_relaxed);
      slots_[slot].unlocks[index].store(0, std::memory_order_relaxed);
    }
  }
  for_each_open([this](const OpenSections& entry) {
    if (entry.domain != this) return;
    for (unsigned index = 0; index < 2; ++index) {
      slots_[cpus_].locks[index].fetch_add(entry.open(index), std::memory_order_relaxed);
    }
  });
  for (auto& wake : wake_) wake.store(0, std::memory_order_relaxed);
  const std::uint64_t completed = completed_.load(std::memory_order_relaxed);
  if (started_.load(std::memory_order_relaxed) < completed) {
    started_.store(completed, std::memory_order_relaxed);
  }
  under_way_ = false;
  poll_queued_.store(false, std::memory_order_relaxed);
  waiters_.store(0, std::memory_order_relaxed);
  grace_.reset();
  generation_.store(generation, std::memory_order_release);
  return true;
}

}  // namespace tandem::rcu
