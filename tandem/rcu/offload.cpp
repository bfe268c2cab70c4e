// SPDX-License-Identifier: Apache-2.0
#include "tandem/rcu/offload.hpp"

#include <cerrno>

#include "tandem/base/futex.hpp"
#include "tandem/rcu/call.hpp"
#include "tandem/rcu/detail/caller_state.hpp"
#include "tandem/rcu/detail/core.hpp"

namespace tandem::rcu {
namespace detail {

Result<Lane*> Core::lane_for(const cpu_set_t& cpus) noexcept {
  if (CPU_COUNT(&cpus) == 0) return errno_error(EINVAL);
  const std::size_t count = lane_count.load(std::memory_order_relaxed);
  for (std::size_t i = 1; i < count; ++i) {
    if (CPU_EQUAL(&lanes[i].cpus, &cpus)) return &lanes[i];
    cpu_set_t common;
    CPU_AND(&common, &lanes[i].cpus, &cpus);
    if (CPU_COUNT(&common) != 0) return errno_error(EINVAL);
  }
  if (count == kLanes) return errno_error(ENOSPC);
  lanes[count].cpus = cpus;
  return &lanes[count];
}

Result<void> Core::set_offload(const offload_options& options) noexcept {
  // A group is not there before its thread is: nobody else may take its place meanwhile.
  const MutexLock one_at_a_time(configuring);
  Lane* lane = nullptr;
  {
    const MutexLock lock(registry);
    const auto found = lane_for(options.cpus);
    if (!found) return Unexpected{found.error()};
    lane = *found;
    lane->has_worker_cpus = options.worker_cpus.has_value();
    if (options.worker_cpus) lane->worker_cpus = *options.worker_cpus;
    lane->policy = options.policy;
    lane->priority = options.priority;
  }
  if (!start_worker(*lane)) return errno_error(EAGAIN);
  lane->offloaded.store(options.offloaded, std::memory_order_seq_cst);
  lane->hurry.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(lane->hurry);
  const MutexLock lock(registry);
  const auto index = static_cast<std::size_t>(lane - lanes.data());
  if (index >= lane_count.load(std::memory_order_relaxed)) {
    lane_count.store(index + 1, std::memory_order_release);
  }
  const int error = lane->worker.configure(options.worker_cpus ? &*options.worker_cpus : nullptr,
                                           options.policy, options.priority);
  if (error != 0) return errno_error(error);
  return {};
}

std::size_t Core::run_callbacks(Reader& self) noexcept TANDEM_NO_THREAD_SAFETY_ANALYSIS {
  if (self.nesting() != 0 || frames != nullptr || self.queue == &no_queue) return 0;
  Queue& queue = *self.queue;
  if (!queue.consumer.try_lock()) return 0;
  const NotCancelled guard;
  const std::uint64_t before = queue.taken.load(std::memory_order_relaxed);
  const bool waits = stage(queue);
  if (!run_ready(queue, ~std::uint64_t{0})) return 0;
  const std::uint64_t after = queue.taken.load(std::memory_order_relaxed);
  queue.consumer.unlock();
  if (waits) {
    (void)start_worker(lanes[0]);  // drives the grace periods that are asked for
    want(cookie());
  }
  return after - before;
}

}  // namespace detail

Result<void> set_offload(const offload_options& options, rcu_domain& dom) {
  return detail::DomainAccess::core(dom).set_offload(options);
}

std::size_t run_callbacks(rcu_domain& dom) noexcept {
  detail::Reader* const self = detail::DomainAccess::known_reader(dom);
  detail::Core& core = detail::DomainAccess::core(dom);
  if (self == nullptr || self->generation != core.generation) return 0;  // has retired nothing
  return core.run_callbacks(*self);
}

}  // namespace tandem::rcu
