// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/slots.hpp"

#include <algorithm>

namespace tandem::pcie::detail {

std::optional<std::uint32_t> Slots::claim_below(std::uint32_t count, SpaceKey space,
                                                unsigned hint) {
  const std::uint32_t busy = space.value() << kSpaceShift | kBusy;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t index = (hint + i) % count;
    std::atomic<std::uint32_t>& state = slots_[index].state;
    std::uint32_t expected = kFree;
    if (state.load(std::memory_order_relaxed) == kFree &&
        state.compare_exchange_strong(expected, busy, std::memory_order_relaxed)) {
      return index;
    }
  }
  return std::nullopt;
}

std::uint32_t Slots::claim_or_join(SpaceKey space, unsigned hint) {
  if (const auto slot = claim_below(kForAccesses, space, hint)) return *slot;
  const MutexLock lock(mutex_);
  ++crowd_[phase_];
  return kCount + phase_;
}

void Slots::leave_crowd(std::uint32_t phase) {
  completing_.fetch_add(1, std::memory_order_relaxed);  // before it looks gone: idle()
  const MutexLock lock(mutex_);
  if (--crowd_[phase] != 0) return;
  clear_locked(kCount + phase);
  turn_locked();
}

void Slots::turn_locked() {
  const std::uint32_t other = 1 - phase_;
  if (crowd_[other] != 0) return;
  const auto current = bit(kCount + phase_);
  const bool waited_for =
      std::any_of(waiting_.begin(), waiting_.end(),
                  [current](const Waiting& one) { return one.used && (one.slots & current) != 0; });
  if (waited_for) phase_ = other;
}

void Slots::clear_locked(std::uint32_t slot) {
  for (Waiting& waiting : waiting_) waiting.slots &= ~bit(slot);
}

bool Slots::release(std::uint32_t index) {
  if (index >= kCount) {
    leave_crowd(index - kCount);
    return true;
  }
  std::atomic<std::uint32_t>& state = slots_[index].state;
  // (W): what was done in the window comes before the completion.
  std::uint32_t owned = state.load(std::memory_order_relaxed);
  if ((owned & kMarked) == 0 &&
      state.compare_exchange_strong(owned, kFree, std::memory_order_release,
                                    std::memory_order_relaxed)) {
    return false;
  }
  completing_.fetch_add(1, std::memory_order_relaxed);  // before the slot looks free: idle()
  const MutexLock lock(mutex_);
  state.store(kFree, std::memory_order_release);
  clear_locked(index);
  return true;
}

bool Slots::wait_for(const iommu::AtsInvalidation& request, std::optional<SpaceKey> space) {
  const MutexLock lock(mutex_);
  Waiting waiting{true, request, 0};
  for (std::uint32_t phase = 0; phase < kPhases; ++phase) {
    if (crowd_[phase] != 0) waiting.slots |= bit(kCount + phase);
  }
  for (std::uint32_t i = 0; i < kCount; ++i) {
    std::atomic<std::uint32_t>& state = slots_[i].state;
    std::uint32_t seen = state.load(std::memory_order_acquire);  // (W)
    const auto matches = [&] {
      const std::uint32_t user = seen >> kSpaceShift;
      return (seen & kBusy) != 0 && (space ? user == space->value() : user != 0);
    };
    while (matches()) {
      if ((seen & kMarked) != 0 ||
          state.compare_exchange_weak(seen, seen | kMarked, std::memory_order_acquire)) {
        waiting.slots |= bit(i);
        break;
      }
    }
  }
  Waiting& place = waiting_[request.itag % kItags];
  place = waiting.over() ? Waiting{} : waiting;
  turn_locked();
  return place.used;
}

std::optional<iommu::AtsInvalidation> Slots::take_completed() {
  const MutexLock lock(mutex_);
  const auto done = std::find_if(waiting_.begin(), waiting_.end(),
                                 [](const Waiting& one) { return one.used && one.over(); });
  if (done == waiting_.end()) return std::nullopt;
  done->used = false;
  return done->request;
}

void Slots::completed() { completing_.fetch_sub(1, std::memory_order_release); }

bool Slots::quiet() const {
  {
    const MutexLock lock(mutex_);
    if (crowd_ != decltype(crowd_){}) return false;
  }
  return std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
    return slot.state.load(std::memory_order_acquire) == kFree;
  });
}

bool Slots::idle() const { return quiet() && completing_.load(std::memory_order_acquire) == 0; }

}  // namespace tandem::pcie::detail
