// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/rcu.hpp"

#include <memory>

#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"

namespace tandem::rcu {
namespace {

constinit std::atomic<std::uint64_t> next_domain_id{1};

}  // namespace

namespace detail {
constinit DefaultDomain default_domain;
}

rcu_domain::rcu_domain() : id_(next_domain_id.fetch_add(1, std::memory_order_relaxed)) {}

rcu_domain::~rcu_domain() {
  if (!core_.load(std::memory_order_acquire)) return;
  detail::Core& mine = core();
  while (mine.queued.load(std::memory_order_acquire) != 0) barrier();  // deleters may retire
  mine.stop_worker();
  mine.dead.store(true, std::memory_order_release);
  mine.release();
}

detail::Core& rcu_domain::core() noexcept {
  const std::uint64_t generation = detail::current_generation();
  detail::Core* current = core_.load(std::memory_order_acquire);
  while (!current || current->generation != generation) {
    auto fresh = std::make_unique<detail::Core>(sequence_, generation, current);
    if (core_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      return *fresh.release();
    }
  }
  return *current;
}

void rcu_domain::retire(detail::Node& node) noexcept {
  const detail::Reader* const self = known_reader();
  core().retire(node, /*may_sleep=*/!self || self->nesting == 0);
}

void rcu_domain::synchronize() noexcept {
  const detail::Reader* const self = known_reader();
  TANDEM_CHECK(!self || self->nesting == 0);  // would wait for itself
  core().synchronize();
}

void rcu_domain::barrier() noexcept {
  const detail::Reader* const self = known_reader();
  core().barrier(self && self->nesting != 0 ? self->state.load(std::memory_order_relaxed)
                                            : sequence_.load(std::memory_order_acquire));
}

}  // namespace tandem::rcu
