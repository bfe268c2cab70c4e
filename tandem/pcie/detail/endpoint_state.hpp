// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "tandem/base/mutex.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/pcie/detail/atc.hpp"
#include "tandem/pcie/detail/bars.hpp"
#include "tandem/pcie/detail/config_space.hpp"
#include "tandem/pcie/detail/in_flight.hpp"
#include "tandem/pcie/detail/page_request.hpp"
#include "tandem/pcie/detail/slots.hpp"
#include "tandem/pcie/detail/thread_state.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie::detail {

/// What an Endpoint is made of.
struct EndpointState {
  EndpointState(DeviceId device, Endpoint::Options with)
      : id(device),
        options(std::move(with)),
        config(options),
        bars(options.bars, options.bar_memory) {}

  const DeviceId id;
  const Endpoint::Options options;
  Atc atc;
  Slots slots;
  PageRequestGroups groups;
  InFlight io_accesses;

  /// Written under change_mutex; read by every operation that does not hit.
  std::atomic<std::uint64_t> controls{0};
  std::atomic<unsigned> log2_smallest_translation_unit{12};  // written under change_mutex
  Mutex change_mutex;                                        // before config_mutex
  Mutex config_mutex;
  ConfigSpace config TANDEM_GUARDED_BY(config_mutex);
  Bars bars TANDEM_GUARDED_BY(change_mutex);
  bool quiet TANDEM_GUARDED_BY(change_mutex) = true;  // nothing of an ended life is left

  ShardedStats stats;
  std::atomic<bool> tapped{false};  // written under tap_mutex, read before every message
  Mutex tap_mutex;
  std::shared_ptr<const Endpoint::Tap> tap TANDEM_GUARDED_BY(tap_mutex);
  std::unique_ptr<iommu::Port> port;  // first to go: afterwards nobody calls us

  /// Set by a Response Failure: page requests stop, and responses are ignored.
  std::atomic<bool> page_requests_failed{false};

  Controls now() const { return Controls(controls.load(std::memory_order_seq_cst)); }
  /// Whether an operation that began with `began` may send messages of `requester` that ask for
  /// `access`. Privilege and execution are asked for in the prefix that carries the PASID.
  bool permits(Controls began, const Requester& requester, Access access) const {
    if (!began.allows(Controls::kBusMaster)) return false;
    const bool executes = access == Access::kExecute;
    if (!requester.pasid) return !requester.privileged && !executes;
    return began.allows(Controls::kPasid | (requester.privileged ? Controls::kPrivileged : 0) |
                        (executes ? Controls::kExecute : 0)) &&
           requester.pasid->value >> options.pasid_bits == 0;
  }
  /// Whether the life in which it began lasts. Asked inside the section that reaches memory: the
  /// end of a life waits for such sections.
  bool lasts(Controls began) const {
    return now().life() == began.life() || planted_fault("pcie-reset-keeps-operations");
  }
  bool requests_pages() const {
    return now().allows(Controls::kPageRequests) &&
           !page_requests_failed.load(std::memory_order_relaxed);
  }

  const memory::Memory& memory() const { return port->memory(); }

  /// Shows what `make` returns to the tap, if there is one.
  template <class Make>
  void show(Make make) {
    if (tapped.load(std::memory_order_relaxed)) [[unlikely]] {
      show_message(make());
    }
  }
  void show_message(const Message& message);
  Message message_of(const iommu::AtsInvalidation& request, Message::Kind kind) const;

  // ---- lives (lifecycle.cpp)
  /// Makes what the registers say so.
  void apply_locked() TANDEM_REQUIRES(change_mutex);
  /// Ends the life, waits for what is left of it, and begins one with `permissions`.
  void end_life_locked(unsigned permissions, const std::function<void()>& on_end)
      TANDEM_REQUIRES(change_mutex);
  /// Resets registers and function. Returns: whether nothing of the old life is left.
  bool reset_locked() TANDEM_REQUIRES(change_mutex);
  void note_page_request_status(std::uint64_t bits) {
    const MutexLock lock(config_mutex);
    config.set_page_request_status(bits);
  }
  /// Does not mind who completes invalidations: it may be the caller, in a handler of the IOMMU.
  bool nothing_under_way() const { return slots.quiet() && io_accesses.idle(); }
  /// Stores a message of the MSI capability. (msi.cpp)
  Result<void, DmaFault> store_message(const ConfigSpace::Msi& message);
  /// Stores those that were pending and are not masked any more.
  void store_pending_messages();

  /// Frees an in-flight slot, and completes the invalidations that waited for it last.
  void release(std::uint32_t slot) {
    if (slots.release(slot)) complete_invalidations();
  }
  /// What follows Slots::release() where somebody waited.
  void complete_invalidations();
};

/// An in-flight slot of an access to an I/O region. To be destroyed outside of sections: what
/// waited for it may go on in the destructor.
class IoSlot {
 public:
  IoSlot() = default;
  IoSlot(EndpointState& state, SpaceKey space)
      : state_(&state), slot_(state.slots.claim_or_join(space, thread_shard())) {}
  IoSlot(IoSlot&& other) noexcept
      : state_(std::exchange(other.state_, nullptr)), slot_(other.slot_), free_(other.free_) {}
  IoSlot& operator=(IoSlot&& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(slot_, other.slot_);
    std::swap(free_, other.free_);
    return *this;
  }
  ~IoSlot() {
    free();
    if (state_ != nullptr) state_->complete_invalidations();
  }
  /// Gives the slot back already, but lets nothing go on yet.
  void free() {
    if (state_ == nullptr || free_) return;
    free_ = true;
    if (!state_->slots.release(slot_)) state_ = nullptr;
  }

 private:
  EndpointState* state_ = nullptr;
  std::uint32_t slot_ = 0;
  bool free_ = false;
};

/// As few parameters as registers hold.
DmaResult read(EndpointState& state, const Requester& requester, Iova at, std::span<std::byte> to);
DmaResult fetch(EndpointState& state, const Requester& requester, Iova at, std::span<std::byte> to);
DmaResult write(EndpointState& state, const Requester& requester, Iova at,
                std::span<const std::byte> from);
/// A write without a PASID that is translated on its way, also where ATS is enabled.
DmaResult write_untranslated(EndpointState& state, Iova at, std::span<const std::byte> from);

bool copy_cached(EndpointState& state, const Requester& requester, Iova from, Iova to,
                 std::size_t length);

/// Sends a group of page requests for `pages` pages from `first` on, and waits for its response.
/// Not with a Window.
Result<void, DmaFault::Reason> request_group(EndpointState& state, Controls began,
                                             const Requester& requester, Iova first,
                                             std::uint32_t pages, Access access);
Result<void, DmaFault> request_pages(EndpointState& state, const Requester& requester, Iova at,
                                     std::size_t length, Access access);
bool send_stop_marker(EndpointState& state, std::optional<Pasid> pasid);

struct Mapped {
  std::uint32_t slot = 0;
  std::span<std::byte> bytes;
};
Result<Mapped, DmaFault> map(EndpointState& state, const Requester& requester, Iova at,
                             std::size_t length, Access access);

}  // namespace tandem::pcie::detail
