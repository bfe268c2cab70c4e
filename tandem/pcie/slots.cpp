// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/slots.hpp"

#include "tandem/base/futex.hpp"

namespace tandem::pcie::detail {

std::optional<std::uint32_t> Slots::claim(SpaceKey space, unsigned hint) {
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::size_t index = (hint + i) % kCount;
    Slot& slot = slots_[index];
    std::uint32_t state = slot.state.load(std::memory_order_relaxed);
    // Acquire: we come after what the last owner's release() published.
    if ((state & kBusy) == 0 &&
        slot.state.compare_exchange_strong(state, state | kBusy, std::memory_order_acquire)) {
      slot.space.store(space.value(), std::memory_order_relaxed);
      return static_cast<std::uint32_t>(index);
    }
  }
  return std::nullopt;
}

void Slots::release(std::uint32_t index) {
  Slot& slot = slots_[index];
  // Others change only kWaited.
  const std::uint32_t next =
      (slot.state.load(std::memory_order_relaxed) & ~(kBusy | kWaited)) + kSequence;
  const std::uint32_t state = slot.state.exchange(next, std::memory_order_acq_rel);  // (W)
  if ((state & kWaited) != 0) futex_wake(slot.state, static_cast<int>(kCount));
}

bool Slots::wait(std::optional<SpaceKey> space, std::chrono::nanoseconds timeout) {
  std::optional<std::chrono::steady_clock::time_point> deadline;
  for (Slot& slot : slots_) {
    std::uint32_t state = slot.state.load(std::memory_order_acquire);  // (W)
    const std::uint32_t owner = state & ~kWaited;
    for (;;) {
      const std::uint32_t user = slot.space.load(std::memory_order_relaxed);
      const bool matches = space ? user == space->value() : user != 0;
      if ((state & kBusy) == 0 || (state & ~kWaited) != owner || !matches) break;
      const auto now = std::chrono::steady_clock::now();
      if (!deadline) deadline = now + timeout;
      if (now >= *deadline) return false;
      if ((state & kWaited) != 0 ||
          slot.state.compare_exchange_strong(state, state | kWaited, std::memory_order_acquire)) {
        futex_wait(slot.state, state | kWaited, *deadline - now);
      }
      state = slot.state.load(std::memory_order_acquire);  // (W)
    }
  }
  return true;
}

bool Slots::idle() const {
  for (const Slot& slot : slots_) {
    if ((slot.state.load(std::memory_order_acquire) & kBusy) != 0) return false;
  }
  return true;
}

}  // namespace tandem::pcie::detail
