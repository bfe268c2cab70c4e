// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "tandem/base/mutex.hpp"
#include "tandem/iommu/detail/config.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::iommu::detail {

/// The interrupt-pending bits and what they become: levels of wires, or messages.
///
/// A bit rises, under the lock of whatever tells its condition, through raise(). Whoever made it
/// rise then signals the edge with no lock held (Iommu::State::signal()): sends the message that
/// take_message() gives, has update_wires() tell the levels, calls the handler.
///
/// An edge is never lost between raise() and clear(): both change the one word atomically, and
/// after clear() every condition is judged again under its own lock. So a condition that came
/// before that judgement is seen by it, and one that comes after finds the bit clear and rises it.
/// Messages do not nest. Storing one may make a bit rise, of the fault that it reaches nothing, or
/// because it went to the registers and cleared a bit whose condition lasts. That edge is signalled
/// next, by whoever sent the message: the stack is as deep as one message's, wherever software made
/// them point.
///
/// Neither is a message lost between masking and unmasking: take_message() looks at the mask and
/// makes the message pending, and write_control() clears the mask and takes what is pending, each
/// in one critical section.
///
/// Thread safety: any thread.
/// Spec: §6.18 "Interrupt pending status register (ipsr)", §6.28 "Interrupt-cause-to-vector
/// register
///       (icvec)", §6.29 "MSI configuration table (msi_cfg_tbl)".
class Interrupts {
 public:
  using Interrupt = Iommu::Interrupt;
  struct Message {
    PhysAddr address;
    std::uint32_t data = 0;
  };

  explicit Interrupts(const Config& config) : config_(config) {}

  /// Ordering: (A) acquire, here and in clear(): software that sees a bit, or has cleared it, sees
  ///           the record it tells of; pairs with raise().
  std::uint32_t pending() const { return ipsr_.load(std::memory_order_acquire); }
  /// Sets a pending bit; returns whether it rose.
  [[nodiscard]] bool raise(Interrupt interrupt) {
    return (ipsr_.fetch_or(bit(interrupt), std::memory_order_release) & bit(interrupt)) ==
           0;  // (A)
  }
  void clear(std::uint32_t bits) { ipsr_.fetch_and(~bits, std::memory_order_acquire); }  // (A)

  /// Bits of ipsr that rose and have not been signalled.
  using Edges = std::uint32_t;
  static constexpr Edges bit(Interrupt interrupt) {
    return std::uint32_t{1} << static_cast<unsigned>(interrupt);
  }
  /// Calls `store`, which stores a message. Returns: the edges that came of it.
  template <class Store>
  Edges collect_edges(Store store) const;
  /// Whether the calling thread is storing a message: the edge is then left to who sent that.
  bool leave_to_sender(Interrupt interrupt) const;
  bool is_storing() const { return storing_here() != nullptr; }

  /// What an edge of `interrupt` sends. Nothing where wires signal; where the vector is masked the
  /// message becomes pending; and nothing where the bit has been cleared since, for whoever did
  /// that knows. To be followed by sent().
  std::optional<Message> take_message(Interrupt interrupt);
  void sent();

  std::uint32_t vectors() const;  ///< icvec
  void write_vectors(std::uint32_t value);

  /// The registers of one entry of msi_cfg_tbl, `vector` < 16.
  bool has_vector(unsigned vector) const;
  std::uint64_t message_address(unsigned vector) const;
  std::uint32_t message_data(unsigned vector) const;
  std::uint32_t control(unsigned vector) const;
  void write_address(unsigned vector, std::uint64_t value, std::uint64_t mask);
  void write_data(unsigned vector, std::uint32_t value);
  /// Returns: the message that was pending for a vector no longer masked, unless wires signal. To
  /// be followed by sent().
  std::optional<Message> write_control(unsigned vector, std::uint32_t value);

  void connect(Iommu::InterruptHandler handler);
  void connect_wires(Iommu::WireHandler handler);
  /// Calls the handler of edges. Call with no lock held, as update_wires().
  void tell(Interrupt interrupt);
  /// Tells the handler of wires which levels have changed. Calls do not overlap: who finds one
  /// under way, maybe its own caller's, leaves the rest to it.
  void update_wires();

  /// All registers 0, no message pending.
  void reset();
  /// Waits for the messages that are on their way.
  void wait_until_sent() const;

 private:
  static constexpr unsigned kVectors = 16;
  struct Entry {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
    std::uint32_t control = 0;
  };

  /// A message under way. Where it goes, one of another IOMMU may come of it.
  struct Storing {
    const Interrupts* of;
    Edges edges;
    Storing* outer;
  };
  Storing* storing_here() const;

  unsigned vector_locked(Interrupt interrupt) const TANDEM_REQUIRES(mutex_);
  std::uint32_t levels_locked() const TANDEM_REQUIRES(mutex_);
  Message make_locked(unsigned vector) TANDEM_REQUIRES(mutex_);

  static constinit thread_local Storing* innermost_;

  const Config& config_;
  std::atomic<std::uint32_t> ipsr_{0};        // any thread
  std::atomic<std::uint32_t> on_the_way_{0};  // messages; raised under mutex_
  mutable Mutex mutex_;
  std::uint32_t vectors_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::array<Entry, kVectors> table_ TANDEM_GUARDED_BY(mutex_){};
  std::uint32_t pending_messages_ TANDEM_GUARDED_BY(mutex_) = 0;  // bit: of this vector
  std::shared_ptr<const Iommu::InterruptHandler> handler_ TANDEM_GUARDED_BY(mutex_);
  std::shared_ptr<const Iommu::WireHandler> wires_ TANDEM_GUARDED_BY(mutex_);
  std::uint32_t told_levels_ TANDEM_GUARDED_BY(mutex_) = 0;
  bool telling_levels_ TANDEM_GUARDED_BY(mutex_) = false;
};

template <class Store>
Interrupts::Edges Interrupts::collect_edges(Store store) const {
  Storing storing{this, 0, innermost_};
  innermost_ = &storing;
  store();
  innermost_ = storing.outer;
  return storing.edges;
}

}  // namespace tandem::iommu::detail
