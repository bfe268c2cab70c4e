// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/interrupts.hpp"

#include <thread>
#include <utility>

#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/byte_order.hpp"
#include "tandem/iommu/detail/mrif.hpp"
#include "tandem/iommu/detail/state.hpp"

namespace tandem::iommu {
namespace detail {

unsigned Interrupts::vector_locked(Interrupt interrupt) const {
  switch (interrupt) {
    case Interrupt::kCommandQueue:
      return static_cast<unsigned>(Icvec::Civ::get(vectors_));
    case Interrupt::kFaultQueue:
      return static_cast<unsigned>(Icvec::Fiv::get(vectors_));
    case Interrupt::kPmu:
      return static_cast<unsigned>(Icvec::Pmiv::get(vectors_));
    case Interrupt::kPageRequestQueue:
      break;
  }
  return static_cast<unsigned>(Icvec::Piv::get(vectors_));
}

// ---- Messages ---------------------------------------------------------------------------------

constinit thread_local Interrupts::Storing* Interrupts::innermost_ = nullptr;

Interrupts::Storing* Interrupts::storing_here() const {
  Storing* storing = innermost_;
  while (storing != nullptr && storing->of != this) storing = storing->outer;
  return storing;
}

bool Interrupts::leave_to_sender(Interrupt interrupt) const {
  Storing* const storing = storing_here();
  if (storing == nullptr) return false;
  storing->edges |= bit(interrupt);
  return true;
}

Interrupts::Message Interrupts::make_locked(unsigned vector) {
  on_the_way_.fetch_add(1, std::memory_order_relaxed);
  return {PhysAddr{table_[vector].address}, table_[vector].data};
}

std::optional<Interrupts::Message> Interrupts::take_message(Interrupt interrupt) {
  unsigned vector = 0;
  {
    const MutexLock lock(mutex_);
    if (config_.wire_interrupts()) return std::nullopt;
    if ((ipsr_.load(std::memory_order_relaxed) & bit(interrupt)) == 0) return std::nullopt;
    vector = vector_locked(interrupt);
    if ((table_[vector].control & MsiConfig::M::kMask) == 0) return make_locked(vector);
    if (!planted_fault("iommu-lost-pending-message")) {
      pending_messages_ |= 1U << vector;
      return std::nullopt;
    }
  }
  for (int i = 0; i < 1000 && control(vector) != 0; ++i) std::this_thread::yield();
  const MutexLock lock(mutex_);
  pending_messages_ |= 1U << vector;
  return std::nullopt;
}

void Interrupts::sent() {
  if (on_the_way_.fetch_sub(1, std::memory_order_release) == 1) on_the_way_.notify_all();  // (B)
}

/// Ordering: (B) acquire, so that what comes after comes after the stores; pairs with sent().
void Interrupts::wait_until_sent() const {
  while (const auto count = on_the_way_.load(std::memory_order_acquire)) on_the_way_.wait(count);
}

bool Interrupts::has_vector(unsigned vector) const {
  return vector < 1U << config_.options.vector_bits;
}

std::uint64_t Interrupts::message_address(unsigned vector) const {
  const MutexLock lock(mutex_);
  return table_[vector].address;
}

std::uint32_t Interrupts::message_data(unsigned vector) const {
  const MutexLock lock(mutex_);
  return table_[vector].data;
}

std::uint32_t Interrupts::control(unsigned vector) const {
  const MutexLock lock(mutex_);
  return table_[vector].control;
}

void Interrupts::write_address(unsigned vector, std::uint64_t value, std::uint64_t mask) {
  const MutexLock lock(mutex_);
  table_[vector].address = merged(table_[vector].address, value, mask) & MsiConfig::Address::kMask;
}

void Interrupts::write_data(unsigned vector, std::uint32_t value) {
  const MutexLock lock(mutex_);
  table_[vector].data = value;
}

std::optional<Interrupts::Message> Interrupts::write_control(unsigned vector, std::uint32_t value) {
  const MutexLock lock(mutex_);
  table_[vector].control = value & static_cast<std::uint32_t>(MsiConfig::M::kMask);
  if (config_.wire_interrupts()) return std::nullopt;
  if (table_[vector].control != 0 || (pending_messages_ >> vector & 1) == 0) return std::nullopt;
  pending_messages_ &= ~(1U << vector);
  return make_locked(vector);
}

// ---- Vectors and wires ------------------------------------------------------------------------

std::uint32_t Interrupts::vectors() const {
  const MutexLock lock(mutex_);
  return vectors_;
}

/// Causes that do not exist have no vector.
void Interrupts::write_vectors(std::uint32_t value) {
  const std::uint64_t each = (std::uint64_t{1} << config_.options.vector_bits) - 1;
  std::uint64_t writable = Icvec::Civ::make(each) | Icvec::Fiv::make(each);
  if (config_.has<Capabilities::Hpm>()) writable |= Icvec::Pmiv::make(each);
  if (config_.has<Capabilities::Ats>()) writable |= Icvec::Piv::make(each);
  const MutexLock lock(mutex_);
  vectors_ = value & static_cast<std::uint32_t>(writable);
}

/// A bit per vector whose wire is high.
std::uint32_t Interrupts::levels_locked() const {
  if (!config_.wire_interrupts()) return 0;
  const std::uint32_t pending = ipsr_.load(std::memory_order_relaxed);
  std::uint32_t levels = 0;
  for (const auto interrupt : {Interrupt::kCommandQueue, Interrupt::kFaultQueue, Interrupt::kPmu,
                               Interrupt::kPageRequestQueue}) {
    if ((pending & bit(interrupt)) != 0) levels |= 1U << vector_locked(interrupt);
  }
  return levels;
}

/// Who changes ipsr or a vector calls this afterwards. Either it finds the change itself, or
/// somebody is telling, whose next look under the mutex comes later and finds it.
void Interrupts::update_wires() {
  for (bool mine = false;; mine = true) {
    std::shared_ptr<const Iommu::WireHandler> handler;
    unsigned vector = 0;
    bool level = false;
    {
      const MutexLock lock(mutex_);
      if (telling_levels_ && !mine) return;
      const std::uint32_t changed = levels_locked() ^ told_levels_;
      telling_levels_ = changed != 0 && wires_ != nullptr;
      if (!telling_levels_) return;
      vector = static_cast<unsigned>(__builtin_ctz(changed));
      told_levels_ ^= 1U << vector;
      level = (told_levels_ >> vector & 1) != 0;
      handler = wires_;
    }
    (*handler)(vector, level);
  }
}

void Interrupts::connect(Iommu::InterruptHandler handler) {
  auto shared = std::make_shared<const Iommu::InterruptHandler>(std::move(handler));
  const MutexLock lock(mutex_);
  handler_ = std::move(shared);
}

void Interrupts::connect_wires(Iommu::WireHandler handler) {
  auto shared = handler ? std::make_shared<const Iommu::WireHandler>(std::move(handler)) : nullptr;
  {
    const MutexLock lock(mutex_);
    wires_ = std::move(shared);
    told_levels_ = 0;
  }
  update_wires();
}

void Interrupts::tell(Interrupt interrupt) {
  std::shared_ptr<const Iommu::InterruptHandler> handler;
  {
    const MutexLock lock(mutex_);
    handler = handler_;
  }
  if (handler && *handler) (*handler)(interrupt);
}

void Interrupts::reset() {
  const MutexLock lock(mutex_);
  ipsr_.store(0, std::memory_order_relaxed);
  vectors_ = 0;
  table_ = {};
  pending_messages_ = 0;
}

}  // namespace detail

void Iommu::State::signal(Interrupt interrupt) {
  if (!interrupts.leave_to_sender(interrupt)) signal_all(detail::Interrupts::bit(interrupt));
}

/// Messages before handlers, which may clear the bit at once. It ends: an edge can only come of a
/// message while its bit is clear, so software has to clear it in between.
void Iommu::State::signal_all(detail::Interrupts::Edges edges) {
  while (edges != 0) {
    const auto interrupt = static_cast<Interrupt>(__builtin_ctz(edges));
    edges &= edges - 1;
    edges |= send(interrupts.take_message(interrupt));
    interrupts.update_wires();
    interrupts.tell(interrupt);
  }
}

detail::Interrupts::Edges Iommu::State::send(
    const std::optional<detail::Interrupts::Message>& message) {
  if (!message) return 0;
  const std::uint32_t data = detail::in_byte_order(message->data, config.big_endian());
  const auto edges = interrupts.collect_edges([&] { store_message(message->address, data); });
  interrupts.sent();
  return edges;
}

/// Spec: §4.2, cause 273; §6.29.
void Iommu::State::store_message(PhysAddr at, std::uint32_t data) {
  if (detail::store_message(memory, at, data)) return;
  report({Cause::kIommuMsiWriteFault, false, 0}, TransactionType::kNone, DeviceId{}, {}, at.value);
}

/// Spec: §6.18 "Interrupt pending status register (ipsr)": a bit whose condition lasts rises again.
/// pmip tells of the moment of an overflow.
void Iommu::State::write_ipsr(std::uint32_t value) {
  interrupts.clear(value);
  if (Ipsr::Cip::get(value) != 0) signal_if(commands.pend_again(), Interrupt::kCommandQueue);
  if (Ipsr::Fip::get(value) != 0) signal_if(faults.pend_again(), Interrupt::kFaultQueue);
  if (Ipsr::Pip::get(value) != 0) {
    signal_if(page_requests.pend_again(), Interrupt::kPageRequestQueue);
  }
  interrupts.update_wires();
}

}  // namespace tandem::iommu
