// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/rcu.hpp"

#include <algorithm>
#include <new>

#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu {
namespace {

constinit std::atomic<std::uint64_t> next_domain_id{1};

/// Where the default domain's first core lies: lock() and retire(), which cannot fail, need no
/// memory there. Never destroyed, since that domain keeps its reference; a forked child's core is
/// another one.
union FirstCore {
  constexpr FirstCore() : nothing() {}
  ~FirstCore() {}
  char nothing;
  detail::Core core;
};
constinit FirstCore first_core;
constinit std::atomic<bool> first_core_taken{false};

}  // namespace

namespace detail {
constinit DefaultDomain default_domain;
}

// A signal handler may be the first to use a domain, so there is a core before.

rcu_domain::rcu_domain() : id_(next_domain_id.fetch_add(1, std::memory_order_relaxed)) { core(); }

namespace {
[[maybe_unused]] const bool made_early = (detail::DomainAccess::core(rcu_default_domain()), true);
}

rcu_domain::~rcu_domain() {
  detail::Core& mine = core();
  TANDEM_CHECK(!runs_deleters_of(mine));  // would wait for itself
  // The thread may be in exit(), called in a section that does not go on.
  if (detail::Reader* const self = known_reader(); self && self->nesting() != 0) {
    self->deeper = 0;
    self->online = false;
    detail::go_offline(*self);
  }
  // Deleters may retire, also one that a worker runs now: a barrier is the last one if nothing came
  // while it waited for all there was.
  std::uint64_t before = 0;
  do {
    before = mine.pushed_ever();
    barrier();
  } while (mine.pushed_ever() != before);
  mine.stop_workers();
  mine.dead.store(true, std::memory_order_release);
  mine.release();
}

detail::Core& rcu_domain::core() noexcept {
  const std::uint64_t generation = detail::current_generation();
  detail::Core* current = core_.load(std::memory_order_acquire);
  while (!current || current->generation != generation) {
    const bool in_place = id_ == 0 && current == nullptr &&
                          !first_core_taken.exchange(true, std::memory_order_relaxed);
    detail::Core* fresh = nullptr;
    if (in_place) {
      fresh = new (&first_core.core) detail::Core(sequence_, generation, current);
    } else {
      fresh = new detail::Core(sequence_, generation, current);
    }
    if (core_.compare_exchange_strong(current, fresh, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      return *fresh;
    }
    if (!in_place) delete fresh;  // another thread was first
  }
  return *current;
}

bool rcu_domain::push_slowly(detail::Reader& self, const std::uintptr_t* words, std::size_t count,
                             std::size_t bytes) noexcept {
  if (&self == &detail::no_reader) return false;  // no memory for one
  if (self.generation != detail::current_generation()) attach(self);
  if (!self.core->make_room(self, count)) return false;
  detail::Queue& queue = *self.queue;
  queue.cursor = std::copy_n(words, count, queue.cursor);
  queue.bytes += bytes;
  queue.pushed.store(queue.pushed.load(std::memory_order_relaxed) + count,
                     std::memory_order_release);
  full_fence();  // (G)
  if (queue.asleep->load(std::memory_order_relaxed) != 0) wake_worker(self);
  self.core->run_own(self);
  if (detail::thread_ends) detail::leave_for_good(self);
  return true;
}

void rcu_domain::wake_worker(detail::Reader& self) noexcept {
  self.core->wake(*self.queue->lane.load(std::memory_order_relaxed));
}

void rcu_domain::retire(detail::Node& node, std::size_t bytes) noexcept {
  node.stamp = detail::DomainAccess::stamp(*this);
  const std::uintptr_t word = reinterpret_cast<std::uintptr_t>(&node) | detail::kStamped;
  if (!push<1>({word}, bytes)) spill(word);
}

void rcu_domain::spill(std::uintptr_t word) noexcept {
  core().spill(word);
  if (!detail::thread_ends) return;
  if (detail::Reader* const self = known_reader()) detail::leave_for_good(*self);
}

namespace {

/// This thread's reader, which a wait for readers must not find in a section: a thread that is
/// online is in a quiescent state while it waits.
class OutOfSection {
 public:
  explicit OutOfSection(detail::Reader* self) : self_(self) {
    if (self_ == nullptr) return;
    TANDEM_CHECK(self_->nesting() == (self_->online ? 1 : 0));  // would wait for itself
    if (self_->online) detail::go_offline(*self_);
  }
  ~OutOfSection() {
    if (self_ != nullptr && self_->online) detail::go_online(*self_);
  }
  OutOfSection(const OutOfSection&) = delete;
  OutOfSection& operator=(const OutOfSection&) = delete;

 private:
  detail::Reader* self_;
};

}  // namespace

void rcu_domain::synchronize() noexcept {
  detail::Reader* const self = known_reader();
  const OutOfSection outside(self);
  core().synchronize(self);
}

void rcu_domain::barrier() noexcept {
  const detail::NotCancelled guard;  // it runs deleters
  detail::Reader* const self = known_reader();
  if (self && self->nesting() > (self->online ? 1 : 0)) {
    return core().barrier_in_section(self->state.load(std::memory_order_relaxed));
  }
  const OutOfSection outside(self);
  core().barrier(self);
}

void detail::DomainAccess::expedite(rcu_domain& domain) noexcept {
  Reader* const self = domain.known_reader();
  const OutOfSection outside(self);
  domain.core().expedite(self);
}

void detail::DomainAccess::await(rcu_domain& domain, std::uint64_t cookie,
                                 bool expedited) noexcept {
  if (domain.core().completed_for(cookie)) return;
  Reader* const self = domain.known_reader();
  const OutOfSection outside(self);
  if (expedited) return domain.core().expedite(self);
  domain.core().await(cookie, self);
}

domain_stats stats(rcu_domain& dom) noexcept { return detail::DomainAccess::core(dom).snapshot(); }

}  // namespace tandem::rcu
