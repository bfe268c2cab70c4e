// SPDX-License-Identifier: Apache-2.0
// A thread's readers: made at the first section in a domain, detached at thread exit.
#include <atomic>
#include <new>
#include <utility>

#include "tandem/base/background_thread.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {

namespace detail {
namespace {

/// A thread's reader in a domain other than the default one. A signal handler may walk the list at
/// any instruction of the thread that changes it, so each change is one store.
struct FurtherReader {
  Reader reader;
  rcu_domain* domain = nullptr;  // valid unless reader.core is dead
  std::atomic<FurtherReader*> next{nullptr};
};

constinit thread_local std::atomic<FurtherReader*> further_readers{nullptr};

FurtherReader* first_further() noexcept { return further_readers.load(std::memory_order_relaxed); }
FurtherReader* after(const FurtherReader& entry) noexcept {
  return entry.next.load(std::memory_order_relaxed);
}

/// Leaves a reader attached in another process alone: its core is the parent's. With signals
/// blocked: a handler must not meet a reader that is half of a domain.
void detach(Reader& reader) noexcept {
  if (reader.generation == current_generation()) {
    reader.core->unlink(reader);
    reader.core->release();
  }
  reader.state.store(0, std::memory_order_release);
  reader.deeper = 0;
  reader.wake.store(0, std::memory_order_relaxed);
  reader.generation = kDetached;
  reader.plain.store(kDetached, std::memory_order_relaxed);
  reader.queue = &no_queue;
  reader.online = false;
  reader.core = nullptr;
}

bool domain_is_dead(const FurtherReader& further) noexcept {
  const Core* const core = further.reader.core;
  return core && core->dead.load(std::memory_order_acquire);
}

void free_readers_of_dead_domains() noexcept {
  std::atomic<FurtherReader*>* link = &further_readers;
  while (FurtherReader* const entry = link->load(std::memory_order_relaxed)) {
    if (!domain_is_dead(*entry)) {
      link = &entry->next;
      continue;
    }
    link->store(after(*entry), std::memory_order_relaxed);
    light_fence();
    const SignalsBlocked blocked;
    detach(entry->reader);
    delete entry;
  }
}

}  // namespace

constinit thread_local Reader default_reader;
constinit Reader no_reader;
constinit thread_local Reader* last_reader = &no_reader;

void on_thread_exit() noexcept {
  const SignalsBlocked blocked;
  thread_ends = true;
  if (default_reader.generation != kDetached) detach(default_reader);
  last_reader = &no_reader;
  FurtherReader* entry = further_readers.exchange(nullptr, std::memory_order_relaxed);
  while (entry != nullptr) {
    detach(entry->reader);
    delete std::exchange(entry, after(*entry));
  }
}

/// Handlers run from the end of fork() on, so what they use is made now.
void on_fork_child(std::uint64_t parent) noexcept {
  const auto keep = [parent](rcu_domain& domain, Reader& reader) {
    const bool attached =
        reader.generation == parent && !reader.core->dead.load(std::memory_order_acquire);
    if (attached || reader.nesting() != 0) DomainAccess::attach(domain, reader);
  };
  DomainAccess::core(rcu_default_domain());
  keep(rcu_default_domain(), default_reader);
  for (FurtherReader* entry = first_further(); entry; entry = after(*entry)) {
    keep(*entry->domain, entry->reader);
  }
}

void leave_for_good(Reader& reader) noexcept {
  if (reader.nesting() != 0 || reader.online) return;
  if (reader.generation == current_generation()) detach(reader);
  if (reader.held) return;
  last_reader = &no_reader;
  std::atomic<FurtherReader*>* link = &further_readers;
  while (FurtherReader* const entry = link->load(std::memory_order_relaxed)) {
    if (&entry->reader == &reader) {
      link->store(after(*entry), std::memory_order_relaxed);
      delete entry;
      return;
    }
    link = &entry->next;
  }
}

void wake_waiters_and_leave(Reader& reader) noexcept {
  reader.core->wake_all();  // `wake` stays, and has us called at the next end of a section
  leave_for_good(reader);
}

/// Ordering: (A), (B) as in rcu_domain::lock(), with a fence of our own.
void go_online(Reader& self) noexcept {
  self.state.store(self.core->sequence.load(std::memory_order_acquire), kReaderOrder);  // (B)
  full_fence();                                                                         // (A)
}

/// Ordering: (C), (D) as in rcu_domain::unlock(), with a fence of our own.
void go_offline(Reader& self) noexcept {
  self.state.store(0, kReaderOrder);  // (C)
  full_fence();                       // (D)
  if (self.wake.load(std::memory_order_relaxed) != 0) wake_waiters(self);
}

}  // namespace detail

detail::Reader& rcu_domain::find_reader() noexcept {
  if (detail::Reader* const known = known_reader()) {
    detail::last_reader = known;
    return *known;
  }
  const detail::KeepErrno keep;
  detail::current_generation();  // sets the exit key up
  detail::watch_thread_exit();
  detail::last_reader = &detail::no_reader;  // what it names may be freed
  detail::free_readers_of_dead_domains();
  auto* const fresh = new (std::nothrow) detail::FurtherReader;
  if (fresh == nullptr) return detail::no_reader;
  fresh->reader.domain_id = id_;
  fresh->domain = this;
  fresh->next.store(detail::first_further(), std::memory_order_relaxed);
  light_fence();
  detail::further_readers.store(fresh, std::memory_order_relaxed);
  light_fence();
  detail::last_reader = &fresh->reader;
  return fresh->reader;
}

detail::Reader* rcu_domain::known_reader() const noexcept {
  if (this == &detail::default_domain.domain) return &detail::default_reader;
  for (detail::FurtherReader* entry = detail::first_further(); entry;
       entry = detail::after(*entry)) {
    if (entry->reader.domain_id == id_) return &entry->reader;
  }
  return nullptr;
}

void rcu_domain::attach(detail::Reader& reader) noexcept {
  const bool there_is_memory = &reader != &detail::no_reader;
  TANDEM_CHECK(there_is_memory);
  if (detail::thread_ends) detail::block_signals_for_good();
  const SignalsBlocked blocked;  // a handler may attach, too
  detail::Core& mine = core();
  if (reader.generation == mine.generation) return;  // a handler was faster
  detail::watch_thread_exit();
  // In a forked child the links, the queue and the reference to the parent's core are forgotten.
  mine.acquire();
  const bool was_plain = reader.is_plain.exchange(false, std::memory_order_relaxed);
  reader.boosted.store(0, std::memory_order_relaxed);
  reader.wake.store(detail::thread_ends ? 1 : 0, std::memory_order_relaxed);
  reader.plain.store(detail::kDetached, std::memory_order_relaxed);
  reader.queue = &detail::no_queue;
  reader.core = &mine;
  reader.generation = mine.generation;
  mine.link(reader);
  // The section that goes on may be a plain one.
  if (was_plain && reader.nesting() != 0) mine.make_plain(reader);
}

void rcu_domain::lock_slowly(detail::Reader& self) noexcept {
  const detail::KeepErrno keep;
  if (self.generation != detail::current_generation()) attach(self);
  self.core->make_plain(self);
  lock_fenced(self);
}

/// Ordering: as lock(), with a fence of our own.
void rcu_domain::lock_fenced(detail::Reader& self) noexcept {
  const std::uint64_t state = self.state.load(std::memory_order_relaxed);
  if (state != 0) {
    self.nest(state);
    return;
  }
  self.state.store(sequence_.load(std::memory_order_acquire), detail::kReaderOrder);  // (B)
  if (!planted_fault("rcu-reader-without-fence")) full_fence();                       // (A)
}

}  // namespace tandem::rcu
