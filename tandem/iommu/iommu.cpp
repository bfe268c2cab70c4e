// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/iommu.hpp"

#include <algorithm>
#include <cerrno>

#include "tandem/base/check.hpp"
#include "tandem/iommu/detail/state.hpp"

namespace tandem::iommu {
namespace {

using detail::Iotlb;
using detail::IotlbContext;
using detail::Transaction;

static_assert(Access{0} == Access::kRead && Access{1} == Access::kWrite &&
              Access{2} == Access::kExecute);
constexpr detail::Attributes kNeeds[] = {Iotlb::kNeedRead, Iotlb::kNeedWrite, Iotlb::kNeedExecute};

detail::Attributes need_of(Access access) { return kNeeds[static_cast<std::size_t>(access)]; }

TransactionType untranslated_type(Access access) {
  switch (access) {
    case Access::kExecute:
      return TransactionType::kUntranslatedExecute;
    case Access::kRead:
      return TransactionType::kUntranslatedRead;
    case Access::kWrite:
      break;
  }
  return TransactionType::kUntranslatedWrite;
}

TransactionType translated_type(Access access) {
  switch (access) {
    case Access::kExecute:
      return TransactionType::kTranslatedExecute;
    case Access::kRead:
      return TransactionType::kTranslatedRead;
    case Access::kWrite:
      break;
  }
  return TransactionType::kTranslatedWrite;
}

}  // namespace

Port::~Port() {
  Iommu::State& state = *iommu_.state_;
  state.signal_if(state.commands.detach(id_), Iommu::Interrupt::kCommandQueue);
}

void Port::complete_invalidation(std::uint8_t itag, unsigned count,
                                 std::optional<std::uint32_t> sequence) {
  Iommu::State& state = *iommu_.state_;
  state.signal_if(state.commands.complete_invalidation(id_, itag, count, sequence),
                  Iommu::Interrupt::kCommandQueue);
}

const memory::Memory& Port::memory() const { return iommu_.state_->memory; }

Result<Translation, Cause> Port::translate(const Requester& requester, Iova at, Access access,
                                           Mrif* mrif) {
  Iommu::State& state = *iommu_.state_;
  if (detail::pasid_exists(requester) && !state.monitor.counts(HpmEvent::kUntranslatedRequest))
      [[likely]] {
    const auto context = IotlbContext::untranslated(id_, requester);
    Stamp stamp;
    if (const auto hit = state.iotlb.lookup_smallest(context, at, need_of(access), stamp))
        [[likely]] {
      state.iotlb_hits.add();
      return hit->translation(at);
    }
  }
  return translate_and_finish(requester, at, access, mrif);
}

/// What translate() does without a hit that is not counted: apart from it, so that such a hit has
/// nothing to finish.
[[gnu::noinline]] Result<Translation, Cause> Port::translate_and_finish(const Requester& requester,
                                                                        Iova at, Access access,
                                                                        Mrif* mrif) {
  Leftover left;
  const bool counted = iommu_.state_->monitor.counts(HpmEvent::kUntranslatedRequest);
  const auto made = counted ? translate_any(requester, at, access, left, mrif)
                            : translate_missing_here(requester, at, access, left, mrif);
  if (left.is_due()) [[unlikely]]
    finish(requester, left);
  return made;
}

Result<Translation, Cause> Port::translate_in_section(const Requester& requester, Iova at,
                                                      Access access, Leftover& left, Mrif* mrif) {
  return translate_any(requester, at, access, left, mrif);
}

[[gnu::always_inline]] inline Result<Translation, Cause> Port::translate_any(
    const Requester& requester, Iova at, Access access, Leftover& left, Mrif* mrif) {
  Iommu::State& state = *iommu_.state_;
  state.count_request(HpmEvent::kUntranslatedRequest, id_, requester, left);
  if (detail::pasid_exists(requester)) [[likely]] {
    const auto context = IotlbContext::untranslated(id_, requester);
    if (const auto hit = state.iotlb.lookup_smallest(context, at, need_of(access), left.stamp))
        [[likely]] {
      state.iotlb_hits.add();
      return hit->translation(at);
    }
  }
  return translate_missing(requester, at, access, left, mrif);
}

/// What translate() does without a hit in the smallest pages: apart from it, so that a hit needs
/// few registers.
[[gnu::noinline]] Result<Translation, Cause> Port::translate_missing(const Requester& requester,
                                                                     Iova at, Access access,
                                                                     Leftover& left, Mrif* mrif) {
  return translate_missing_here(requester, at, access, left, mrif);
}

[[gnu::always_inline]] inline Result<Translation, Cause> Port::translate_missing_here(
    const Requester& requester, Iova at, Access access, Leftover& left, Mrif* mrif) {
  Iommu::State& state = *iommu_.state_;
  const auto context = IotlbContext::untranslated(id_, requester);
  if (detail::pasid_exists(requester)) {
    if (const auto hit = state.iotlb.lookup_larger(context, at, need_of(access), left.stamp)) {
      state.iotlb_hits.add();
      return hit->translation(at);
    }
  }
  const Transaction transaction{untranslated_type(access), id_, requester, at, access,
                                access == Access::kWrite,  mrif};
  const auto made = state.translate(transaction, context, left);
  if (made) return *made;
  left.refusal = {made.error(), transaction.type, at};
  return Unexpected{made.error().cause};
}

Result<Translation, Cause> Port::translated(const Requester& requester, PhysAddr at,
                                            Access access) {
  Leftover left;
  const auto made = translated_in_section(requester, at, access, left);
  finish(requester, left);
  return made;
}

Result<Translation, Cause> Port::translated_in_section(const Requester& requester, PhysAddr at,
                                                       Access access, Leftover& left) {
  Iommu::State& state = *iommu_.state_;
  state.count_request(HpmEvent::kTranslatedRequest, id_, requester, left);
  const auto context = IotlbContext::translated(id_, requester);
  const Iova address{at.value};
  if (detail::pasid_exists(requester)) {
    if (const auto hit = state.iotlb.lookup(context, address, need_of(access), left.stamp)) {
      state.iotlb_hits.add();
      return hit->translation(address);
    }
  }
  const Transaction transaction{translated_type(access), id_, requester, address, access,
                                access == Access::kWrite};
  const auto made = state.translate(transaction, context, left);
  if (made) return *made;
  left.refusal = {made.error(), transaction.type, address};
  return Unexpected{made.error().cause};
}

Hold Port::hold(const Leftover& left) const {
  Hold hold;
  hold.iommu_ = &iommu_;
  iommu_.state_->commands.begin_access(left.stamp, hold.access_);
  return hold;
}

void Hold::take(Hold& other) noexcept {
  iommu_ = std::exchange(other.iommu_, nullptr);
  if (iommu_ != nullptr) iommu_->state_->commands.move_access(other.access_, access_);
}

Hold::~Hold() {
  if (iommu_ == nullptr) return;
  Iommu::State& state = *iommu_->state_;
  state.signal_if(state.commands.end_access(access_), Iommu::Interrupt::kCommandQueue);
}

void Port::finish(const Requester& requester, const Leftover& left) {
  iommu_.state_->finish(left, id_, requester);
}

void Port::page_request(const PageRequest& request) {
  iommu_.state_->page_request(id_, callbacks_, request);
}

Iommu::Iommu(const memory::Memory& memory, const Options& options) {
  constexpr std::uint64_t kFixed = Capabilities::Version::kMask | Capabilities::Pas::kMask;
  TANDEM_CHECK((options.capabilities & ~(kAllCapabilities | Capabilities::Igs::kMask)) == 0);
  TANDEM_CHECK((options.capabilities & kFixed) == (kAllCapabilities & kFixed));
  TANDEM_CHECK(Capabilities::Igs::get(options.capabilities) <= Capabilities::kIgsBoth);
  TANDEM_CHECK(options.counters >= 1 && options.counters <= detail::PerformanceMonitor::kCounters);
  TANDEM_CHECK(options.counter_bits >= 32 && options.counter_bits <= 64);
  TANDEM_CHECK(options.rcid_bits <= IommuQosid::Rcid::kWidth);
  TANDEM_CHECK(options.mcid_bits <= IommuQosid::Mcid::kWidth);
  TANDEM_CHECK(options.vector_bits <= Icvec::Civ::kWidth);
  TANDEM_CHECK(options.reset_mode <= Ddtp::ModeValue::kBare);
  state_ = std::make_unique<State>(memory, options);
}

Iommu::Iommu(const memory::Memory& memory, std::uint64_t capabilities)
    : Iommu(memory, Options{.capabilities = capabilities}) {}

Iommu::~Iommu() = default;

void Iommu::on_interrupt(InterruptHandler handler) {
  state_->interrupts.connect(std::move(handler));
}

void Iommu::advance(TimePoint now) {
  state_->signal_if(state_->commands.advance(now), Interrupt::kCommandQueue);
  state_->poll_monitor();
}

std::optional<Iommu::TimePoint> Iommu::next_deadline() const {
  const auto of_commands = state_->commands.next_deadline();
  const auto of_monitor = state_->monitor.next_overflow();
  if (!of_commands || !of_monitor) return of_commands ? of_commands : of_monitor;
  return std::min(*of_commands, *of_monitor);
}

void Iommu::on_deadline(DeadlineHandler handler) { state_->deadline.connect(std::move(handler)); }

void Iommu::on_wire(WireHandler handler) { state_->interrupts.connect_wires(std::move(handler)); }

void Iommu::reset() { state_->reset(); }

bool Iommu::is_storing() const {
  return state_->commands.runs_here() || state_->interrupts.is_storing();
}

Result<std::unique_ptr<Port>> Iommu::attach(DeviceId id, DeviceCallbacks& callbacks) {
  if (id.value >> IotlbContext::Device::kWidth != 0) return errno_error(EINVAL);
  if (!state_->commands.attach(id, callbacks)) return errno_error(EEXIST);
  return std::unique_ptr<Port>(new Port(*this, id, callbacks));
}

Stats Iommu::stats() const {
  Stats stats;
  stats.iotlb_hits = state_->iotlb_hits.total();
  stats.translations = stats.iotlb_hits + state_->iotlb_misses.total();
  stats.walks = state_->walks.total();
  stats.page_requests = state_->page_requests_seen.load(std::memory_order_relaxed);
  stats.invalidations = state_->commands.invalidations();
  stats.faults = state_->faults_seen.load(std::memory_order_relaxed);
  return stats;
}

}  // namespace tandem::iommu
