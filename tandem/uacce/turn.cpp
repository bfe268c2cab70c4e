// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tandem/uacce/detail/in_flight.hpp"
#include "tandem/uacce/detail/scheduler.hpp"

namespace tandem::uacce::detail {

Worker& Turn::worker_for(const std::shared_ptr<Device>& device) {
  for (auto& [owner, worker] : workers_) {
    if (owner == device) return *worker;
  }
  workers_.emplace_back(device, device->engine().make_worker());
  return *workers_.back().second;
}

void Turn::purge_workers() {
  std::erase_if(workers_, [](auto& entry) {
    if (!entry.first->closed()) return false;
    entry.second.reset();
    return true;
  });
}

Completion Turn::after_fault(Completion completion, const Queue& queue) {
  if (queue.mm().classify(completion.fault_address) == AddressKind::kNeedsStaging) {
    completion.status = TANDEM_STATUS_NEEDS_STAGING;
  }
  return completion;
}

/// Runs one operation with the lane put down, so that the watchdog can give it to another thread.
///
/// The word `operation` decides who has the lane: odd while we are in the worker. The watchdog
/// takes the lane by replacing that very odd value; our way back in replaces it by the next even
/// one. One of the two succeeds.
std::optional<Completion> Turn::execute(Queue& queue, const tandem_descriptor& descriptor) {
  std::uint64_t mine = operation.load(std::memory_order_relaxed) + 1;
  operation.store(mine, std::memory_order_release);  // (W)
  const InFlight::Operation accesses(queue.death());
  const Completion completion = run_operation(
      [&]() -> Worker& { return worker_for(queue.shared_device()); }, queue, descriptor);
  if (!operation.compare_exchange_strong(mine, mine + 1, std::memory_order_acq_rel)) {
    return std::nullopt;
  }
  return completion;
}

}  // namespace tandem::uacce::detail
