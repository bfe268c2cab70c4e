// SPDX-License-Identifier: Apache-2.0
// Readers of sleepable domains beside the inline path: where they count, what they have open, and
// what a forked child makes of it.
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <climits>
#include <new>

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

using detail::FurtherSections;
using detail::OpenSections;
using detail::thread_sections;

/// Marks a domain that a thread of the process with the rest of the bits makes its own: who finds
/// the mark of another process need not wait for that thread.
constexpr std::uint64_t kRefreshing = std::uint64_t{1} << 63;

/// The first entry that `fits`, or null.
template <class Fits>
OpenSections* find_entry(Fits fits) noexcept {
  auto& mine = detail::here(&thread_sections);
  for (OpenSections& entry : mine.entries) {
    if (fits(entry)) return &entry;
  }
  for (FurtherSections* page = mine.further.load(std::memory_order_relaxed); page != nullptr;
       page = page->next) {
    for (OpenSections& entry : page->entries) {
      if (fits(entry)) return &entry;
    }
  }
  return nullptr;
}

template <class Visit>
void for_each_open(Visit visit) {
  (void)find_entry([&visit](OpenSections& entry) {
    if (entry.any()) visit(entry);
    return false;
  });
}

/// Async-signal-safe. Stays until the thread ends.
OpenSections& further_entry() noexcept {
  void* const memory = ::mmap(nullptr, sizeof(FurtherSections), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool there_is_memory = memory != MAP_FAILED;
  TANDEM_CHECK(there_is_memory);
  auto* const page = new (memory) FurtherSections;
  auto& further = detail::here(&thread_sections).further;
  page->next = further.load(std::memory_order_relaxed);
  while (!further.compare_exchange_weak(page->next, page, std::memory_order_relaxed)) {
  }
  detail::watch_thread_exit();
  return page->entries[0];
}

}  // namespace

void detail::free_sections() noexcept {
  const SignalsBlocked blocked;  // a handler would use what is about to go
  FurtherSections* page = thread_sections.further.exchange(nullptr, std::memory_order_relaxed);
  while (page != nullptr) {
    FurtherSections* const next = page->next;
    const bool in_use = std::any_of(std::begin(page->entries), std::end(page->entries),
                                    [](const OpenSections& entry) { return entry.any(); });
    if (in_use) {  // by destructors that come later, or for ever
      page->next = thread_sections.further.load(std::memory_order_relaxed);
      thread_sections.further.store(page, std::memory_order_relaxed);
    } else {
      ::munmap(page, sizeof *page);
    }
    page = next;
  }
}

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

/// A handler that comes in between closes what it opens: an entry that was free is free again.
void srcu_domain::count_open_slowly(unsigned index) noexcept {
  OpenSections* entry =
      find_entry([this](const OpenSections& one) { return one.domain == this && one.any(); });
  if (!entry) entry = find_entry([](const OpenSections& one) { return !one.any(); });
  if (!entry) entry = &further_entry();
  add_on_this_thread(entry->counts[index].opened, 1);
  light_fence();
  entry->domain = this;
}

void srcu_domain::count_closed_slowly(unsigned index) noexcept {
  OpenSections* const entry = find_entry([this, index](const OpenSections& one) {
    return one.domain == this && one.open(index) != 0;
  });
  const bool this_thread_has_it_open = entry != nullptr;
  TANDEM_CHECK(this_thread_has_it_open);
  add_on_this_thread(entry->counts[index].closed, 1);
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
