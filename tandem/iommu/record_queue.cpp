// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/record_queue.hpp"

#include "tandem/iommu/detail/byte_order.hpp"
#include "tandem/iommu/detail/ring.hpp"

namespace tandem::iommu::detail {

static_assert(Fqcsr::Fqen::kMask == Pqcsr::Pqen::kMask && Fqcsr::Fie::kMask == Pqcsr::Pie::kMask &&
              Fqcsr::Fqmf::kMask == Pqcsr::Pqmf::kMask &&
              Fqcsr::Fqof::kMask == Pqcsr::Pqof::kMask && Fqcsr::Fqon::kMask == Pqcsr::Pqon::kMask);

void RecordQueue::set_csr_locked(std::uint64_t bits) {
  csr_.store(csr_.load(std::memory_order_relaxed) | static_cast<std::uint32_t>(bits),
             std::memory_order_release);
}

bool RecordQueue::pend_locked() {
  return Csr::Fie::get(csr_.load(std::memory_order_relaxed)) != 0 && interrupts_.raise(interrupt_);
}

bool RecordQueue::pend_if_error_locked() {
  constexpr std::uint64_t kErrors = Csr::Fqmf::kMask | Csr::Fqof::kMask;
  return (csr_.load(std::memory_order_relaxed) & kErrors) != 0 && pend_locked();
}

RecordQueue::Pushed RecordQueue::push(std::span<const std::uint64_t> words) {
  const MutexLock lock(mutex_);
  const std::uint32_t csr = csr_.load(std::memory_order_relaxed);
  if (Csr::Fqon::get(csr) == 0) return {Status::kOff, false};
  if (Csr::Fqmf::get(csr) != 0) return {Status::kMemoryFault, false};
  if (Csr::Fqof::get(csr) != 0) return {Status::kOverflow, false};

  const std::uint64_t base = base_.load(std::memory_order_relaxed);
  const std::uint32_t tail = tail_.load(std::memory_order_relaxed);
  const std::uint32_t next = (tail + 1) & ring_mask(base);
  if (next == head_.load(std::memory_order_relaxed)) {
    set_csr_locked(Csr::Fqof::kMask);
    return {Status::kOverflow, pend_locked()};
  }
  PhysAddr at = ring_entry(base, tail, words.size_bytes());
  const bool big_endian = config_.big_endian();
  for (const std::uint64_t word : words) {
    if (!memory_.store64(at, in_byte_order(word, big_endian), std::memory_order_relaxed)) {
      set_csr_locked(Csr::Fqmf::kMask);
      return {Status::kMemoryFault, pend_locked()};
    }
    at = at.plus(sizeof word);
  }
  tail_.store(next, std::memory_order_release);
  return {Status::kQueued, pend_locked()};
}

void RecordQueue::write_base(std::uint64_t value, std::uint64_t mask) {
  const MutexLock lock(mutex_);
  value = merged(base_.load(std::memory_order_relaxed), value, mask);
  if (Csr::Fqon::get(csr_.load(std::memory_order_relaxed)) != 0) return;  // UNSPECIFIED: ignored
  base_.store(value & kQueueBaseMask, std::memory_order_relaxed);
  head_.store(head_.load(std::memory_order_relaxed) & ring_mask(value), std::memory_order_relaxed);
}

void RecordQueue::write_head(std::uint32_t value) {
  const MutexLock lock(mutex_);
  head_.store(value & ring_mask(base_.load(std::memory_order_relaxed)), std::memory_order_relaxed);
}

bool RecordQueue::write_csr(std::uint32_t value) {
  const MutexLock lock(mutex_);
  const std::uint32_t old = csr_.load(std::memory_order_relaxed);
  constexpr std::uint64_t kErrors = Csr::Fqmf::kMask | Csr::Fqof::kMask;
  const bool enable = Csr::Fqen::get(value) != 0;
  std::uint64_t errors = old & ~value & kErrors;
  if (enable && Csr::Fqen::get(old) == 0) {
    errors = 0;
    tail_.store(0, std::memory_order_relaxed);
  }
  csr_.store(static_cast<std::uint32_t>(errors | Csr::Fqen::make(enable) | Csr::Fqon::make(enable) |
                                        (value & Csr::Fie::kMask)),
             std::memory_order_release);
  return pend_if_error_locked();
}

bool RecordQueue::pend_again() {
  const MutexLock lock(mutex_);
  return pend_if_error_locked();
}

void RecordQueue::reset() {
  const MutexLock lock(mutex_);
  csr_.store(0, std::memory_order_relaxed);
  base_.store(0, std::memory_order_relaxed);
  head_.store(0, std::memory_order_relaxed);
  tail_.store(0, std::memory_order_relaxed);
}

}  // namespace tandem::iommu::detail
