// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/detail/config.hpp"
#include "tandem/iommu/detail/interrupts.hpp"
#include "tandem/iommu/spec.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::iommu::detail {

/// A queue that the IOMMU produces and software consumes, with its registers: the fault queue and
/// the page-request queue, whose registers have the same layout.
///
/// Methods that may raise the queue's interrupt return whether its pending bit rose; the caller
/// then signals it, with no lock held.
///
/// Thread safety: any thread. Registers are read without the lock.
/// Spec: §4.2, §4.3; §6.9 to §6.14, §6.16, §6.17.
class RecordQueue {
 public:
  enum class Status : std::uint8_t { kQueued, kOff, kMemoryFault, kOverflow };
  struct Pushed {
    Status status = Status::kOff;
    bool raised = false;
  };

  RecordQueue(const memory::Memory& memory, const Config& config, Interrupts& interrupts,
              Iommu::Interrupt interrupt)
      : memory_(memory), config_(config), interrupts_(interrupts), interrupt_(interrupt) {}

  /// Appends a record. One that cannot be stored is discarded, as is everything until software
  /// clears the error bit.
  Pushed push(std::span<const std::uint64_t> words);

  std::uint64_t base() const { return base_.load(std::memory_order_relaxed); }
  std::uint32_t head() const { return head_.load(std::memory_order_relaxed); }
  /// Ordering: acquire; pairs with the release in push() that publishes the record.
  std::uint32_t tail() const { return tail_.load(std::memory_order_acquire); }
  std::uint32_t csr() const { return csr_.load(std::memory_order_acquire); }

  void write_base(std::uint64_t value, std::uint64_t mask);
  void write_head(std::uint32_t value);
  [[nodiscard]] bool write_csr(std::uint32_t value);
  /// Software has cleared the queue's ipsr bit: sets it again if the condition lasts.
  [[nodiscard]] bool pend_again();
  /// Off, all registers 0.
  void reset();

 private:
  using Csr = Fqcsr;  // the layout of both

  void set_csr_locked(std::uint64_t bits) TANDEM_REQUIRES(mutex_);
  bool pend_locked() TANDEM_REQUIRES(mutex_);
  bool pend_if_error_locked() TANDEM_REQUIRES(mutex_);

  const memory::Memory& memory_;
  const Config& config_;
  Interrupts& interrupts_;
  const Iommu::Interrupt interrupt_;
  Mutex mutex_;
  // Written under mutex_, read by any thread.
  std::atomic<std::uint64_t> base_{0};
  std::atomic<std::uint32_t> head_{0};
  std::atomic<std::uint32_t> tail_{0};
  std::atomic<std::uint32_t> csr_{0};
};

}  // namespace tandem::iommu::detail
