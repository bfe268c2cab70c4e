// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <mutex>
#include <type_traits>

#include "tandem/memory/transfer.hpp"
#include "tandem/pcie/detail/endpoint_state.hpp"
#include "tandem/pcie/detail/translate.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie::detail {
namespace {

using memory::Fault;
using memory::IoPin;
using memory::kSectionBytes;
using memory::PhysAddr;
using memory::piece_bytes;
using memory::Target;
using rcu::rcu_default_domain;
using Reason = DmaFault::Reason;

constexpr std::size_t kRunBytes = std::size_t{1} << 20;  // translated ahead, given to one I/O call
constexpr std::uint64_t kPageBytes = 4096;

void copy(std::byte* host, std::span<std::byte> to) { std::memcpy(to.data(), host, to.size()); }
void copy(std::byte* host, std::span<const std::byte> from) {
  std::memcpy(host, from.data(), from.size());
}

bool wraps(Iova at, std::size_t length) {
  return length != 0 && at.value > ~std::uint64_t{0} - (length - 1);
}

/// What one reader section achieved: bytes copied, or a pinned I/O region to access after it, or
/// the reason why neither.
struct Step {
  std::size_t length = 0;  // copied, or behind `io`
  IoPin io;
  InFlight::Guard in_flight;        // where there is `io`
  Fault fault = Fault::kNone;       // of the memory at the very beginning
  bool missed = false;              // no translation at the very beginning
  bool ended = false;               // the life of the operation
  std::optional<PhysAddr> refused;  // a guest physical address
};

/// Copies or pins what is behind the run of physical addresses at the beginning of `bytes`.
template <class Byte>
Step use_run(EndpointState& state, PhysAddr at, std::span<Byte> bytes) {
  Step step;
  Target target = state.memory().resolve(at, bytes.size(), std::is_const_v<Byte>);
  step.fault = target.fault;
  step.length = target.length;
  if (target.host != nullptr) {
    step.length = piece_bytes(at.value, target.length);
    memory::copy(target, bytes.first(step.length));
  }
  if (target.io) step.in_flight = state.io_accesses.enter();
  step.io = std::move(target.io);
  return step;
}

/// One read() or write() of an endpoint.
template <class Byte>
class Transfer {
 public:
  Transfer(EndpointState& state, std::optional<Pasid> pasid, Iova at, std::span<Byte> bytes)
      : state_(state), pasid_(pasid), translator_(state, pasid, kAccess), at_(at), bytes_(bytes) {}

  DmaResult run() {
    if (wraps(at_, bytes_.size())) return {0, DmaFault{Reason::kWraps, at_}};
    if (!translator_.permitted()) return {0, fault_here(Reason::kDisabled)};
    std::optional<DmaFault> fault;
    while (!fault && done_ < bytes_.size()) {
      Step step = translator_.uses_ats() ? section() : untranslated();
      if (step.ended) {
        fault = fault_here(Reason::kDisabled);
      } else if (step.refused) {
        fault = report_refused(*step.refused);
      } else if (step.io) {
        fault = access_io(step);
      } else if (step.fault != Fault::kNone) {
        fault = memory_fault(step.fault);
      } else if (step.missed) {
        fault = miss();
      } else {
        progress(step.length);
      }
    }
    state_.stats.add(counted_);
    thread_state.stats.translations += counted_.translations;
    thread_state.stats.atc_hits += counted_.atc_hits;
    return {done_, fault};
  }

 private:
  static constexpr bool kIsWrite = std::is_const_v<Byte>;
  static constexpr Access kAccess = kIsWrite ? Access::kWrite : Access::kRead;

  Iova here() const { return at_.plus(done_); }
  std::span<Byte> rest() const { return bytes_.subspan(done_); }
  DmaFault fault_here(Reason reason) const { return {reason, here()}; }

  void progress(std::size_t length) {
    if (length == 0) return;
    state_.show([&] {
      Message message;
      message.kind = kIsWrite ? Message::Kind::kMemoryWrite : Message::Kind::kMemoryRead;
      message.device = state_.id;
      message.pasid = pasid_;
      message.address = here();
      message.size_bytes = length;
      message.readable = !kIsWrite;
      message.writable = kIsWrite;
      return message;
    });
    done_ += length;
    translator_.progressed();
  }

  /// Finds a translation of `at`: in the ATC, or the one just received if nothing was invalidated
  /// since. Inside a section.
  bool find(Iova at, std::uint64_t version, CachedTranslation& found) {
    if (state_.atc.lookup(translator_.space(), at.value, translator_.permissions(), version,
                          found)) {
      if (at.value - at_.value >= walked_) {
        ++counted_.translations;
        ++counted_.atc_hits;
      }
      return true;
    }
    if (!fresh_ || !fresh_->translation.covers(at.value) ||
        !state_.atc.current(translator_.space(), fresh_->ticket)) {
      return false;
    }
    found = fresh_->translation;
    if (found.version != version) found.host = nullptr;
    return true;
  }

  /// Copies host RAM, at most kSectionBytes; or pins the I/O region that holds the next run.
  Step section() {
    const std::scoped_lock reader(rcu_default_domain());
    const std::uint64_t version = state_.memory().version();
    const std::size_t limit = piece_bytes(here().value, rest().size());
    Step step;
    step.ended = !translator_.alive();
    if (step.ended) return step;
    while (step.length < limit) {
      const Iova at = here().plus(step.length);
      CachedTranslation found;
      if (!find(at, version, found)) {
        step.missed = step.length == 0;
        return step;
      }
      if (found.host != nullptr) {
        const std::size_t length =
            std::min<std::uint64_t>(limit - step.length, found.reach(at.value));
        copy(found.host + found.offset(at.value), rest().subspan(step.length, length));
        step.length += length;
        continue;
      }
      if (step.length != 0) return step;
      const PhysAddr physical{found.physical + found.offset(at.value)};
      const std::size_t length = run_length(found, version);
      if ((found.permissions & kGuestAddress) != 0) return translated(physical, length);
      return use_run(state_, physical, rest().first(length));
    }
    return step;
  }

  /// Sends a translated request for a guest physical address. Inside the section that found it, so
  /// that a fault is not recorded here: its interrupt may do what a section forbids.
  Step translated(PhysAddr guest, std::size_t length) {
    const auto found = state_.port->translated({pasid_, false}, guest, kAccess, /*record=*/false);
    if (!found) {
      Step step;
      step.refused = guest;
      return step;
    }
    const std::uint64_t size_bytes = std::uint64_t{1} << std::min<unsigned>(found->log2_size, 56);
    const std::uint64_t reach = size_bytes - (guest.value & (size_bytes - 1));
    return use_run(state_, found->address, rest().first(std::min<std::uint64_t>(length, reach)));
  }

  /// Sends the request again to have its fault recorded, unless it is good by now.
  std::optional<DmaFault> report_refused(PhysAddr guest) {
    if (state_.port->translated({pasid_, false}, guest, kAccess)) return std::nullopt;
    return memory_fault(Fault::kRefused);
  }

  /// How far from here() the physical addresses go on without a gap and without cached host RAM.
  std::size_t run_length(const CachedTranslation& first, std::uint64_t version) {
    const std::size_t limit = std::min(rest().size(), kRunBytes);
    std::uint64_t length = first.reach(here().value);
    const std::uint64_t physical = first.physical + first.offset(here().value);
    CachedTranslation next;
    while (length < limit && find(here().plus(length), version, next) && next.host == nullptr &&
           next.physical + next.offset(here().value + length) == physical + length) {
      length += next.reach(here().value + length);
    }
    return std::min<std::uint64_t>(length, limit);
  }

  std::optional<DmaFault> access_io(Step& step) {
    if (thread_state.windows != 0) return fault_here(Reason::kNotMappable);
    const memory::Outcome outcome = memory::access(step.io, rest().first(step.length));
    step.io = {};
    step.in_flight = {};
    progress(outcome.done_bytes);
    return outcome.ok() ? std::nullopt : memory_fault(outcome.fault);
  }

  /// The memory behind the translation refused. It may have been remapped to other memory
  /// meanwhile: asks once per page, and goes on if the answer is good.
  std::optional<DmaFault> memory_fault(Fault why) {
    if (why == Fault::kPoisoned) return fault_here(Reason::kPoisoned);
    const std::uint64_t page = here().value & ~(kPageBytes - 1);
    if (!state_.requests_pages() || refused_page_ == page || thread_state.windows != 0) {
      return fault_here(Reason::kMemory);
    }
    refused_page_ = page;
    state_.atc.invalidate(translator_.space(), page, kPageBytes);
    fresh_.reset();
    const auto served = translator_.request_page(here());
    if (!served) return fault_here(served.error());
    return std::nullopt;
  }

  /// Translates here() and, so that I/O regions are accessed in long runs, what follows it. A fault
  /// further on ends the access when it gets there.
  std::optional<DmaFault> miss() {
    if (ahead_ && ahead_->address == here()) return ahead_;
    if (!translator_.uses_ats()) return std::nullopt;
    const std::uint64_t limit = done_ + std::min(rest().size(), kRunBytes);
    ++counted_.translations;
    const auto here_now = translator_.translate(here());
    if (!here_now) return fault_here(here_now.error());
    fresh_ = *here_now;
    std::uint64_t walked = done_ + here_now->translation.reach(here().value);
    walked_ = std::max(walked_, walked);
    while (walked < limit && !ahead_) {
      const Iova at = at_.plus(walked);
      std::uint64_t reach = cached_reach(at);
      if (reach == 0) {
        ++counted_.translations;
        // Its own bounds: what lies ahead must not use up those of the page we stand at.
        Translator of_next = translator_;
        of_next.progressed();
        const auto next = of_next.translate(at);
        if (next) {
          reach = next->translation.reach(at.value);
        } else {
          ahead_ = DmaFault{next.error(), at};
        }
      }
      walked += reach;
      walked_ = std::max(walked_, walked);
    }
    return std::nullopt;
  }

  std::uint64_t cached_reach(Iova at) {
    const std::scoped_lock reader(rcu_default_domain());
    CachedTranslation found;
    return find(at, state_.memory().version(), found) ? found.reach(at.value) : 0;
  }

  /// Without ATS: translates each piece for this access only. Where the translation fails,
  /// step.missed and ahead_ say so.
  Step untranslated() {
    const std::size_t limit = piece_bytes(here().value, rest().size());
    PhysAddr first;
    std::uint64_t length = 0;
    while (length < limit && !(ahead_ && ahead_->address == here().plus(length))) {
      const Iova at = here().plus(length);
      const auto found = state_.port->translate({pasid_, false}, at, kAccess);
      if (!found) {
        ahead_ = DmaFault{reason_for(found.error()), at};
        break;
      }
      if (length == 0) first = found->address;
      if (found->address != first.plus(length)) break;
      const unsigned log2_size = std::min<unsigned>(found->log2_size, 56);
      const std::uint64_t size_bytes = std::uint64_t{1} << log2_size;
      length += size_bytes - (at.value & (size_bytes - 1));
    }
    if (length == 0) {
      Step step;
      step.missed = true;
      return step;
    }
    const std::scoped_lock reader(rcu_default_domain());
    if (!translator_.alive()) {
      Step step;
      step.ended = true;
      return step;
    }
    return use_run(state_, first, rest().first(std::min<std::uint64_t>(length, limit)));
  }

  static Reason reason_for(iommu::Cause cause) {
    switch (cause) {
      case iommu::Cause::kInstructionPageFault:
      case iommu::Cause::kReadPageFault:
      case iommu::Cause::kWritePageFault:
        return Reason::kNotPermitted;
      default:
        return Reason::kBlocked;
    }
  }

  EndpointState& state_;
  std::optional<Pasid> pasid_;
  Translator translator_;
  Iova at_;
  std::span<Byte> bytes_;
  std::size_t done_ = 0;
  std::optional<Fresh> fresh_;     // of the last miss
  std::uint64_t walked_ = 0;       // offset up to which look-ups were counted already
  std::optional<DmaFault> ahead_;  // found while translating ahead
  std::optional<std::uint64_t> refused_page_;
  EndpointStats counted_;
};

/// Finds host RAM behind all of [at, at + length). Inside a section.
std::byte* cached_host(const EndpointState& state, SpaceKey space, Iova at, std::size_t length,
                       unsigned permissions, std::uint64_t version) {
  CachedTranslation found;
  if (!state.atc.lookup(space, at.value, permissions, version, found) || found.host == nullptr ||
      found.reach(at.value) < length) {
    return nullptr;
  }
  return found.host + found.offset(at.value);
}

/// Counts look-ups that hit, for the endpoint and for the calling thread.
void count_hits(EndpointState& state, std::uint64_t number) {
  state.stats.add({.translations = number, .atc_hits = number});
  thread_state.stats.translations += number;
  thread_state.stats.atc_hits += number;
}

/// The common case, an access to host RAM whose translation is cached: true when it was done.
template <class Byte>
bool hit(EndpointState& state, SpaceKey space, Iova at, std::span<Byte> bytes) {
  constexpr unsigned kPermissions = std::is_const_v<Byte> ? kWritable : kReadable;
  if (bytes.size() > kSectionBytes || state.tapped.load(std::memory_order_relaxed)) return false;
  {
    const std::scoped_lock reader(rcu_default_domain());
    std::byte* const host =
        cached_host(state, space, at, bytes.size(), kPermissions, state.memory().version());
    if (host == nullptr) return false;
    copy(host, bytes);
  }
  count_hits(state, 1);
  return true;
}

template <class Byte>
DmaResult start(EndpointState& state, std::optional<Pasid> pasid, Iova at, std::span<Byte> bytes) {
  if (bytes.empty()) return {};
  if (hit(state, SpaceKey(pasid), at, bytes)) return {bytes.size(), std::nullopt};
  return Transfer<Byte>(state, pasid, at, bytes).run();
}

}  // namespace

bool copy_cached(EndpointState& state, std::optional<Pasid> pasid, Iova from, Iova to,
                 std::size_t length) {
  if (length > kSectionBytes || state.tapped.load(std::memory_order_relaxed)) return false;
  const SpaceKey space(pasid);
  {
    const std::scoped_lock reader(rcu_default_domain());
    const std::uint64_t version = state.memory().version();
    const std::byte* source = cached_host(state, space, from, length, kReadable, version);
    if (source == nullptr) return false;
    std::byte* target = cached_host(state, space, to, length, kWritable, version);
    if (target == nullptr) return false;
    std::memmove(target, source, length);
  }
  count_hits(state, 2);
  return true;
}

DmaResult transfer(EndpointState& state, std::optional<Pasid> pasid, Iova at,
                   std::span<std::byte> to) {
  return start(state, pasid, at, to);
}

DmaResult transfer(EndpointState& state, std::optional<Pasid> pasid, Iova at,
                   std::span<const std::byte> from) {
  return start(state, pasid, at, from);
}

}  // namespace tandem::pcie::detail
