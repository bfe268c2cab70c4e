// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/detail/config.hpp"
#include "tandem/iommu/detail/deadline.hpp"
#include "tandem/iommu/detail/generations.hpp"
#include "tandem/iommu/detail/held_accesses.hpp"
#include "tandem/iommu/detail/interrupts.hpp"
#include "tandem/iommu/detail/itag_table.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// The command queue, its registers, and the devices that commands speak to.
///
/// Commands run on the thread that writes cqt (or clears an error), under the queue's mutex, device
/// callbacks included. Where a command has to wait for devices the queue stops at it, and goes on,
/// from that command, on the thread that ends the wait. Methods return whether the interrupt's
/// pending bit rose; the caller then signals it, with no lock held.
///
/// Thread safety: any thread; registers are read without the lock.
/// Spec: §4.1 "Command-Queue (CQ)"; §6.6 to §6.8, §6.15.
class CommandQueue {
 public:
  CommandQueue(const memory::Memory& memory, const Config& config, Generations& generations,
               const std::atomic<std::uint64_t>& ddtp, Interrupts& interrupts,
               const Deadline& deadline)
      : memory_(memory),
        config_(config),
        generations_(generations),
        ddtp_(ddtp),
        interrupts_(interrupts),
        deadline_(deadline),
        accesses_(generations) {}

  /// Errors: false when the id is taken.
  bool attach(DeviceId id, DeviceCallbacks& callbacks);
  /// When it returns, no callback of the device runs. Its outstanding invalidations have timed out.
  [[nodiscard]] bool detach(DeviceId id);
  /// See Port::complete_invalidation() and Iommu::advance(). A queue that waited for this goes on.
  [[nodiscard]] bool complete_invalidation(DeviceId device, std::uint8_t itag, unsigned count,
                                           std::optional<std::uint32_t> sequence);
  [[nodiscard]] bool advance(ItagTable::TimePoint now);
  std::optional<ItagTable::TimePoint> next_deadline() const;
  /// See Port::hold(). begin_access() in the section of the translation, end_access() outside.
  void begin_access(const Stamp& stamp, HeldAccesses::Access& access) {
    accesses_.begin(stamp, access);
  }
  void move_access(HeldAccesses::Access& from, HeldAccesses::Access& to) {
    accesses_.move(from, to);
  }
  [[nodiscard]] bool end_access(HeldAccesses::Access& access);
  /// Those that run now, for as long as an invalidation has; and whether those are over whose
  /// translations are void. See HeldAccesses.
  HeldAccesses::Earlier earlier_accesses() const { return accesses_.earlier(new_deadline()); }
  bool over(const HeldAccesses::Earlier& earlier) const { return accesses_.over(earlier); }
  /// Waits until they are, and gives up what is left.
  [[nodiscard]] bool finish_earlier_accesses();
  /// Whether the calling thread is running a command.
  bool runs_here() const;
  /// Whether the queue waits for devices.
  bool waits() const { return itags_.waited_for() || accesses_.waited_for(); }

  std::uint64_t base() const { return base_.load(std::memory_order_relaxed); }
  /// Ordering: acquire; pairs with the release in process_locked() after a command's effects.
  std::uint32_t head() const { return head_.load(std::memory_order_acquire); }
  std::uint32_t tail() const { return tail_.load(std::memory_order_relaxed); }
  std::uint32_t csr() const { return csr_.load(std::memory_order_acquire); }
  std::uint64_t invalidations() const { return invalidations_.load(std::memory_order_relaxed); }

  void write_base(std::uint64_t value, std::uint64_t mask);
  [[nodiscard]] bool write_tail(std::uint32_t value);
  [[nodiscard]] bool write_csr(std::uint32_t value);
  /// Sets cip, also again after software has cleared it, if its condition lasts. Takes no lock: a
  /// handler may call it while commands run. Ordering: acquire; who changes the csr does so before
  /// it raises cip, so that either we see the change, or that comes after the clearing.
  [[nodiscard]] bool pend_again();
  /// Waits for the command at work, not for those behind it, as write_csr() does. Off, all
  /// registers 0; devices stay attached, and completions of what was outstanding are ignored.
  void reset();

 private:
  /// How a command ended. Whatever is not kDone leaves cqh at the command.
  enum class Step : std::uint8_t { kDone, kWait, kIllegal, kMemoryFault, kTimeout };

  bool resume();
  /// When what is sent now has timed out.
  ItagTable::TimePoint new_deadline() const;
  bool take_timed_out() {
    const bool by_device = itags_.take_timed_out();
    return accesses_.take_timed_out() || by_device;
  }
  void stop_waiting() {
    itags_.stop_waiting();
    accesses_.stop_waiting();
  }

  void process_locked() TANDEM_REQUIRES(mutex_);
  void set_csr_locked(std::uint64_t bits) TANDEM_REQUIRES(mutex_);
  Step execute_locked(const Command& command) TANDEM_REQUIRES(mutex_);
  Step iotinval_locked(const Command& command) TANDEM_REQUIRES(mutex_);
  Step iofence_locked(const Command& command) TANDEM_REQUIRES(mutex_);
  Step iodir_locked(const Command& command) TANDEM_REQUIRES(mutex_);
  Step ats_locked(const Command& command) TANDEM_REQUIRES(mutex_);
  Step ats_invalidate_locked(const Command& command) TANDEM_REQUIRES(mutex_);
  void page_response_locked(const Command& command) TANDEM_REQUIRES(mutex_);
  DeviceCallbacks* device_locked(DeviceId id) TANDEM_REQUIRES(mutex_);

  const memory::Memory& memory_;
  const Config& config_;
  Generations& generations_;
  const std::atomic<std::uint64_t>& ddtp_;
  Interrupts& interrupts_;
  const Deadline& deadline_;
  Mutex mutex_;  // the command_mutex_ of the module overview
  std::map<DeviceId, DeviceCallbacks*> devices_ TANDEM_GUARDED_BY(mutex_);
  bool accesses_to_wait_for_ TANDEM_GUARDED_BY(mutex_) = false;  // since the last fence
  ItagTable itags_;
  HeldAccesses accesses_;
  // Written under mutex_, read by any thread.
  std::atomic<unsigned> stops_{0};  // who waits for mutex_ to turn the queue off: commands yield
  std::atomic<std::uint64_t> base_{0};
  std::atomic<std::uint32_t> head_{0};
  std::atomic<std::uint32_t> tail_{0};
  std::atomic<std::uint32_t> csr_{0};
  std::atomic<std::uint64_t> invalidations_{0};
};

}  // namespace tandem::iommu::detail
