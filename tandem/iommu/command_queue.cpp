// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/command_queue.hpp"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/byte_order.hpp"
#include "tandem/iommu/detail/ring.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu::detail {
namespace {

constexpr std::uint64_t kStalls = Cqcsr::Cqmf::kMask | Cqcsr::CmdTo::kMask | Cqcsr::CmdIll::kMask;
constexpr std::uint64_t kSticky = kStalls | Cqcsr::FenceWIp::kMask;

constinit thread_local const CommandQueue* running = nullptr;  // commands on this thread

}  // namespace

bool CommandQueue::attach(DeviceId id, DeviceCallbacks& callbacks) {
  const MutexLock lock(mutex_);
  return devices_.emplace(id, &callbacks).second;
}

bool CommandQueue::detach(DeviceId id) {
  {
    const MutexLock lock(mutex_);
    if (!planted_fault("iommu-detach-keeps-device")) devices_.erase(id);
  }
  return itags_.expire(id) && resume();
}

bool CommandQueue::complete_invalidation(DeviceId device, std::uint8_t itag, unsigned count,
                                         std::optional<std::uint32_t> sequence) {
  return itags_.complete(device, itag, count, sequence) && resume();
}

bool CommandQueue::advance(ItagTable::TimePoint now) {
  const bool by_device = itags_.expire(now);
  return (accesses_.expire(now) || by_device) && resume();
}

std::optional<ItagTable::TimePoint> CommandQueue::next_deadline() const {
  const auto of_devices = itags_.next_deadline();
  const auto of_accesses = accesses_.next_deadline();
  if (!of_devices || !of_accesses) return of_devices ? of_devices : of_accesses;
  return std::min(*of_devices, *of_accesses);
}

/// Saturates: a time-out may be meant as "never".
ItagTable::TimePoint CommandQueue::new_deadline() const {
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::nanoseconds time = config_.options.invalidation_timeout;
  return time < ItagTable::TimePoint::max() - now ? now + time : ItagTable::TimePoint::max();
}

bool CommandQueue::end_access(HeldAccesses::Access& access) {
  return accesses_.end(access) && resume();
}

bool CommandQueue::finish_earlier_accesses() {
  const auto earlier = earlier_accesses();
  while (!over(earlier)) std::this_thread::sleep_for(std::chrono::microseconds(20));
  return accesses_.give_up(earlier) && resume();
}

/// The commands that follow may wait for a grace period, which nobody does inside a section: then
/// it is left to the next advance() or write to cqt.
bool CommandQueue::resume() {
  if (rcu::rcu_default_domain().in_section()) {
    deadline_.tell(ItagTable::TimePoint{});  // already
    return false;
  }
  const MutexLock lock(mutex_);
  process_locked();
  return pend_again();
}

void CommandQueue::write_base(std::uint64_t value, std::uint64_t mask) {
  const MutexLock lock(mutex_);
  value = merged(base_.load(std::memory_order_relaxed), value, mask);
  if (Cqcsr::Cqon::get(csr_.load(std::memory_order_relaxed)) != 0) return;  // UNSPECIFIED: ignored
  base_.store(value & kQueueBaseMask, std::memory_order_relaxed);
  tail_.store(tail_.load(std::memory_order_relaxed) & ring_mask(value), std::memory_order_relaxed);
}

bool CommandQueue::write_tail(std::uint32_t value) {
  const MutexLock lock(mutex_);
  tail_.store(value & ring_mask(base_.load(std::memory_order_relaxed)), std::memory_order_relaxed);
  process_locked();
  return pend_again();
}

bool CommandQueue::write_csr(std::uint32_t value) {
  const bool enable = Cqcsr::Cqen::get(value) != 0;
  if (!enable) stops_.fetch_add(1, std::memory_order_relaxed);
  const MutexLock lock(mutex_);
  if (!enable) stops_.fetch_sub(1, std::memory_order_relaxed);
  const std::uint32_t old = csr_.load(std::memory_order_relaxed);
  std::uint64_t sticky = old & ~value & kSticky;
  if (enable && Cqcsr::Cqen::get(old) == 0) {
    sticky = 0;
    head_.store(0, std::memory_order_release);
    (void)take_timed_out();
  }
  csr_.store(static_cast<std::uint32_t>(sticky | Cqcsr::Cqen::make(enable) |
                                        Cqcsr::Cqon::make(enable) | (value & Cqcsr::Cie::kMask)),
             std::memory_order_release);
  process_locked();
  return pend_again();
}

void CommandQueue::reset() {
  stops_.fetch_add(1, std::memory_order_relaxed);
  const MutexLock lock(mutex_);
  stops_.fetch_sub(1, std::memory_order_relaxed);
  csr_.store(0, std::memory_order_relaxed);
  base_.store(0, std::memory_order_relaxed);
  head_.store(0, std::memory_order_relaxed);
  tail_.store(0, std::memory_order_relaxed);
  (void)itags_.expire(ItagTable::TimePoint::max());
  (void)take_timed_out();
  stop_waiting();
}

bool CommandQueue::pend_again() {
  const std::uint32_t csr = csr_.load(std::memory_order_acquire);
  if (Cqcsr::Cie::get(csr) == 0 || (csr & kSticky) == 0) return false;
  return interrupts_.raise(Iommu::Interrupt::kCommandQueue);
}

void CommandQueue::set_csr_locked(std::uint64_t bits) {
  csr_.store(csr_.load(std::memory_order_relaxed) | static_cast<std::uint32_t>(bits),
             std::memory_order_release);
}

bool CommandQueue::runs_here() const { return running == this; }

void CommandQueue::process_locked() {
  stop_waiting();
  const std::uint64_t base = base_.load(std::memory_order_relaxed);
  const std::uint32_t mask = ring_mask(base);
  while (true) {
    const std::uint32_t csr = csr_.load(std::memory_order_relaxed);
    const std::uint32_t head = head_.load(std::memory_order_relaxed);
    if (Cqcsr::Cqon::get(csr) == 0 || (csr & kStalls) != 0) return;
    if (head == tail_.load(std::memory_order_relaxed)) return;
    if (stops_.load(std::memory_order_relaxed) != 0) return;

    Command command;
    PhysAddr at = ring_entry(base, head, sizeof command);
    for (std::uint64_t& word : command.words) {
      const auto loaded = memory_.load64(at, std::memory_order_acquire);
      if (!loaded) return set_csr_locked(Cqcsr::Cqmf::kMask);
      word = in_byte_order(*loaded, config_.big_endian());
      at = at.plus(sizeof word);
    }
    const CommandQueue* const outer = std::exchange(running, this);
    const Step step = execute_locked(command);
    running = outer;
    switch (step) {
      case Step::kDone:
        head_.store((head + 1) & mask, std::memory_order_release);
        break;
      case Step::kWait:
        return;
      case Step::kIllegal:
        return set_csr_locked(Cqcsr::CmdIll::kMask);
      case Step::kMemoryFault:
        return set_csr_locked(Cqcsr::Cqmf::kMask);
      case Step::kTimeout:
        return set_csr_locked(Cqcsr::CmdTo::kMask);
    }
  }
}

CommandQueue::Step CommandQueue::execute_locked(const Command& command) {
  switch (static_cast<Command::OpcodeValue>(Command::Opcode::get(command.words[0]))) {
    case Command::OpcodeValue::kIotinval:
      return iotinval_locked(command);
    case Command::OpcodeValue::kIofence:
      return iofence_locked(command);
    case Command::OpcodeValue::kIodir:
      return iodir_locked(command);
    case Command::OpcodeValue::kAts:
      return ats_locked(command);
  }
  return Step::kIllegal;
}

}  // namespace tandem::iommu::detail
