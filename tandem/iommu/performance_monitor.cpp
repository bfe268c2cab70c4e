// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/performance_monitor.hpp"

#include <algorithm>
#include <utility>

#include "tandem/iommu/detail/state.hpp"

namespace tandem::iommu {
namespace detail {
namespace {

constexpr auto kLastEvent = static_cast<std::uint64_t>(HpmEvent::kSecondStageWalk);

std::uint64_t ones(unsigned bits) { return ~std::uint64_t{0} >> (64 - bits); }

/// Whether filters may name address spaces and guests (IDT = 1).
bool supports_address_spaces(HpmEvent event) {
  return event == HpmEvent::kTlbMiss || event == HpmEvent::kFirstStageWalk ||
         event == HpmEvent::kSecondStageWalk;
}

/// The bits of an id that count: with DMASK, those above its lowest 0.
std::uint32_t partial_mask(std::uint32_t id) { return ~(id ^ (id + 1)); }

/// Spec: §6.23, table "filtering options".
bool passes(std::uint64_t selector, HpmEvent event, const EventIds& ids) {
  const bool by_space = Iohpmevt::Idt::get(selector) != 0;
  if (by_space && !supports_address_spaces(event)) return false;
  if (Iohpmevt::PvPscv::get(selector) != 0) {
    std::optional<std::uint32_t> id = ids.pscid;
    if (!by_space) id = ids.process ? std::optional(ids.process->value) : std::nullopt;
    if (!id || *id != Iohpmevt::PidPscid::get(selector)) return false;
  }
  if (Iohpmevt::DvGscv::get(selector) != 0) {
    const std::optional<std::uint32_t> id = by_space ? ids.gscid : ids.device.value;
    const auto wanted = static_cast<std::uint32_t>(Iohpmevt::DidGscid::get(selector));
    const bool partial = Iohpmevt::Dmask::get(selector) != 0;
    const std::uint32_t mask = partial ? partial_mask(wanted) : ~std::uint32_t{0};
    if (!id || ((*id ^ wanted) & mask) != 0) return false;
  }
  return true;
}

}  // namespace

PerformanceMonitor::PerformanceMonitor(const Config& config, Interrupts& interrupts)
    : config_(config),
      interrupts_(interrupts),
      counter_mask_(ones(config.options.counter_bits)),
      cycles_mask_(ones(std::min(config.options.counter_bits, Iohpmcycles::Counter::kWidth))) {}

/// The additions to a counter are in one order, so exactly one of them wraps it; and of several
/// wraps exactly one finds OF clear.
bool PerformanceMonitor::count(HpmEvent event, const EventIds& ids, unsigned times) {
  bool rose = false;
  const std::uint32_t inhibits = inhibits_.load(std::memory_order_relaxed);
  for (unsigned i = 0; i < config_.options.counters; ++i) {
    const std::uint64_t selector = selectors_[i].load(std::memory_order_relaxed);
    if (Iohpmevt::EventId::get(selector) != static_cast<std::uint64_t>(event)) continue;
    if (inhibited(inhibits, i) || !passes(selector, event, ids)) continue;
    const std::uint64_t old = counters_[i].value.fetch_add(times, std::memory_order_relaxed);
    if (counter_mask_ - (old & counter_mask_) >= times) continue;
    const std::uint64_t of = Iohpmevt::Of::kMask;
    const bool first = (selectors_[i].fetch_or(of, std::memory_order_relaxed) & of) == 0;
    if (first && interrupts_.raise(Iommu::Interrupt::kPmu)) rose = true;
  }
  return rose;
}

// ---- iohpmcycles ------------------------------------------------------------------------------

bool PerformanceMonitor::advance_cycles_locked() {
  const Clock::time_point now = Clock::now();
  const auto elapsed = std::chrono::nanoseconds(now - as_of_);
  as_of_ = now;
  if ((inhibits() & 1) != 0) return false;
  const std::uint64_t count = cycles_ & cycles_mask_;
  const auto more = static_cast<std::uint64_t>(elapsed.count());
  const bool overflowed = more > cycles_mask_ - count;
  const bool first = overflowed && Iohpmcycles::Of::get(cycles_) == 0;
  cycles_ = Iohpmcycles::Of::make(overflowed || Iohpmcycles::Of::get(cycles_) != 0) |
            ((count + more) & cycles_mask_);
  return first && interrupts_.raise(Iommu::Interrupt::kPmu);
}

bool PerformanceMonitor::poll() {
  if (!config_.has<Capabilities::Hpm>()) return false;
  const MutexLock lock(mutex_);
  return advance_cycles_locked();
}

std::optional<std::chrono::steady_clock::time_point> PerformanceMonitor::next_overflow() const {
  if (!config_.has<Capabilities::Hpm>()) return std::nullopt;
  const MutexLock lock(mutex_);
  if ((inhibits() & 1) != 0 || Iohpmcycles::Of::get(cycles_) != 0) return std::nullopt;
  const std::uint64_t left = cycles_mask_ - (cycles_ & cycles_mask_);
  const auto representable = (Clock::time_point::max() - as_of_).count();
  if (left >= static_cast<std::uint64_t>(representable)) return std::nullopt;
  return as_of_ + std::chrono::nanoseconds(static_cast<std::int64_t>(left) + 1);
}

std::uint64_t PerformanceMonitor::cycles() const {
  const MutexLock lock(mutex_);
  return cycles_;
}

void PerformanceMonitor::write_cycles(std::uint64_t value) {
  const MutexLock lock(mutex_);
  cycles_ = value & (Iohpmcycles::Of::kMask | cycles_mask_);
  as_of_ = Clock::now();
}

// ---- Registers --------------------------------------------------------------------------------

std::uint32_t PerformanceMonitor::overflows() const {
  auto overflows = static_cast<std::uint32_t>(Iohpmcycles::Of::get(cycles()));
  for (unsigned i = 0; i < config_.options.counters; ++i) {
    overflows |= static_cast<std::uint32_t>(Iohpmevt::Of::get(selector(i))) << (i + 1);
  }
  return overflows;
}

void PerformanceMonitor::write_inhibits(std::uint32_t value) {
  const MutexLock lock(mutex_);
  inhibits_.store(value & static_cast<std::uint32_t>(ones(config_.options.counters + 1)),
                  std::memory_order_relaxed);
  update_active_locked();
}

std::uint64_t PerformanceMonitor::counter(unsigned i) const {
  return counters_[i].value.load(std::memory_order_relaxed) & counter_mask_;
}

void PerformanceMonitor::write_counter(unsigned i, std::uint64_t value) {
  counters_[i].value.store(value & counter_mask_, std::memory_order_relaxed);
}

std::uint64_t PerformanceMonitor::selector(unsigned i) const {
  return selectors_[i].load(std::memory_order_relaxed);
}

void PerformanceMonitor::write_selector(unsigned i, std::uint64_t value, std::uint64_t mask) {
  const MutexLock lock(mutex_);
  std::uint64_t old = selector(i);
  std::uint64_t next = 0;
  do {  // OF may be set meanwhile
    next = merged(old, value, mask);
    if (Iohpmevt::EventId::get(next) > kLastEvent) {
      next = Iohpmevt::EventId::set(next, Iohpmevt::EventId::get(old));
    }
  } while (!selectors_[i].compare_exchange_weak(old, next, std::memory_order_relaxed));
  update_active_locked();
}

void PerformanceMonitor::update_active_locked() {
  std::uint32_t active = 0;
  for (unsigned i = 0; i < config_.options.counters; ++i) {
    if (inhibited(inhibits(), i)) continue;
    active |= bit(static_cast<HpmEvent>(Iohpmevt::EventId::get(selector(i))));
  }
  active_.store(active & ~bit(HpmEvent::kNone), std::memory_order_relaxed);
}

void PerformanceMonitor::reset() {
  const MutexLock lock(mutex_);
  for (auto& selector : selectors_) selector.store(0, std::memory_order_relaxed);
  for (auto& counter : counters_) counter.value.store(0, std::memory_order_relaxed);
  inhibits_.store(0, std::memory_order_relaxed);
  update_active_locked();
  cycles_ = 0;
  as_of_ = Clock::now();
}

}  // namespace detail

void Iommu::State::count_walks_slow(const detail::WalkCounts& counts, Leftover& left) {
  const detail::TableLoads& loads = counts.loads;
  for (const auto& [event, times] : {std::pair{HpmEvent::kTlbMiss, counts.tlb_misses},
                                     {HpmEvent::kDeviceDirectoryWalk, loads.device_directory},
                                     {HpmEvent::kProcessDirectoryWalk, loads.process_directory},
                                     {HpmEvent::kFirstStageWalk, loads.first_stage},
                                     {HpmEvent::kSecondStageWalk, loads.second_stage}}) {
    if (times == 0 || !monitor.counts(event)) continue;
    if (monitor.count(event, counts.ids, times)) left.overflowed = true;
  }
}

}  // namespace tandem::iommu
