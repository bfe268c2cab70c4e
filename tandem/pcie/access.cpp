// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <mutex>
#include <type_traits>

#include "tandem/base/planted_fault.hpp"
#include "tandem/pcie/detail/step.hpp"
#include "tandem/pcie/detail/translate.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie::detail {
namespace {

using memory::Fault;
using memory::kSectionBytes;
using memory::PhysAddr;
using memory::piece_bytes;
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

/// One read() or write() of an endpoint.
template <class Byte>
class Transfer {
 public:
  /// `translates`: whether to ask for translations, where ATS is enabled.
  Transfer(EndpointState& state, const Requester& requester, Iova at, std::span<Byte> bytes,
           Access access, bool translates = true)
      : state_(state),
        requester_(requester),
        access_(access),
        translator_(state, requester, access),
        uses_ats_(translates && translator_.uses_ats()),
        at_(at),
        bytes_(bytes) {}

  DmaResult run() {
    if (wraps(at_, bytes_.size())) return {0, DmaFault{Reason::kWraps, at_}};
    if (!translator_.permitted()) return {0, fault_here(Reason::kDisabled)};
    std::optional<DmaFault> fault;
    while (!fault && done_ < bytes_.size()) {
      untranslated_ = !uses_ats_ || is_untranslated_only();
      Step step = untranslated_ ? untranslated() : section();
      progress(step.copied);
      if (!step.io && !step.msi) over(step);  // a page request's service may invalidate
      if (step.ended) {
        fault = fault_here(Reason::kDisabled);
      } else if (step.has_window) {
        fault = fault_here(Reason::kNotMappable);
      } else if (step.io) {
        fault = access_io(step);
      } else if (step.msi) {
        fault = finish_msi(step);
      } else if (step.fault != Fault::kNone) {
        fault = memory_fault(step.fault);
      } else if (step.missed) {
        fault = miss();
      }
      if (step.left.is_due()) {
        over(step);
        state_.port->finish(requester_, step.left);
        if (step.left.refusal) fault = refused(step.left.refusal->fault.cause);
      }
    }
    state_.stats.add(counted_);
    thread_state.stats.translations += counted_.translations;
    thread_state.stats.atc_hits += counted_.atc_hits;
    return {done_, fault};
  }

 private:
  static constexpr bool kIsWrite = std::is_const_v<Byte>;

  Iova here() const { return at_.plus(done_); }
  std::span<Byte> rest() const { return bytes_.subspan(done_); }
  DmaFault fault_here(Reason reason) const { return {reason, here()}; }

  void progress(std::size_t length) {
    if (length == 0) return;
    state_.show([&] {
      Message message;
      message.kind = kIsWrite ? Message::Kind::kMemoryWrite : Message::Kind::kMemoryRead;
      message.device = state_.id;
      message.set_requester(requester_);
      message.address = here();
      message.size_bytes = length;
      message.readable = !kIsWrite;
      message.writable = kIsWrite;
      message.executable = access_ == Access::kExecute;
      return message;
    });
    done_ += length;
    translator_.progressed();
  }

  /// Finds a translation of `at`: in the ATC, or the one just received if nothing was invalidated
  /// since. Inside a section.
  bool find(Iova at, std::uint64_t version, CachedTranslation& found) {
    if (!look_up(at, version, found)) return false;
    if (at.value - at_.value >= walked_) {
      ++counted_.translations;
      ++counted_.atc_hits;
    }
    return true;
  }
  bool look_up(Iova at, std::uint64_t version, CachedTranslation& found) {
    if (state_.atc.lookup(translator_.space(), at.value, translator_.permissions(), version,
                          found)) {
      return true;
    }
    if (!fresh_ || fresh_->untranslated_only || !fresh_->translation.covers(at.value) ||
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
    if (!translator_.alive()) return ended();
    Step step;
    while (step.copied < limit) {
      const Iova at = here().plus(step.copied);
      CachedTranslation found;
      if (!find(at, version, found)) {
        step.missed = step.copied == 0;
        return step;
      }
      if (found.host != nullptr) {
        const std::size_t length =
            std::min<std::uint64_t>(limit - step.copied, found.reach(at.value));
        copy(found.host + found.offset(at.value), rest().subspan(step.copied, length));
        step.copied += length;
        continue;
      }
      if (step.copied != 0) return step;
      const PhysAddr physical{found.physical + found.offset(at.value)};
      const std::size_t length = run_length(found, version);
      if ((found.permissions & kGuestAddress) != 0) {
        translated(physical, length, step);
      } else {
        use_run(state_, physical, rest().first(length), step);
      }
      if (step.is_waited_for()) hold(found, version, step);
      return step;
    }
    return step;
  }

  /// Lets invalidations wait for the access to step.io, whose translation begins with `first`. One
  /// that came before hides the translation when it is looked up again: nothing there is accessed.
  void hold(const CachedTranslation& first, std::uint64_t version, Step& step) {
    if ((first.permissions & kGuestAddress) != 0) step.hold = state_.port->hold(step.left);
    if (!planted_fault("pcie-io-without-slot")) {
      step.slot = IoSlot(state_, translator_.space());
      const std::size_t found = still_found(first, step.copied + step.length, version);
      if (found <= step.copied) {
        step.io = {};
        step.in_flight = {};
        return;
      }
      step.length = found - step.copied;
    }
  }

  /// How many of the `length` bytes at here() are translated as they were, from `first` on.
  std::size_t still_found(const CachedTranslation& first, std::size_t length,
                          std::uint64_t version) {
    const std::uint64_t physical = first.physical + first.offset(here().value);
    std::uint64_t done = 0;
    while (done < length) {
      const Iova at = here().plus(done);
      CachedTranslation found;
      if (!look_up(at, version, found) ||
          found.physical + found.offset(at.value) != physical + done ||
          ((found.permissions ^ first.permissions) & kGuestAddress) != 0) {
        break;
      }
      done += found.reach(at.value);
    }
    return std::min<std::uint64_t>(done, length);
  }

  /// Sends a translated request for a guest physical address. Inside the section that found it, so
  /// that a fault is not recorded here: its interrupt may do what a section forbids.
  void translated(PhysAddr guest, std::size_t length, Step& step) {
    const auto found = state_.port->translated_in_section(requester_, guest, access_, step.left);
    if (!found) return;
    const std::uint64_t size_bytes = std::uint64_t{1} << std::min<unsigned>(found->log2_size, 56);
    const std::uint64_t reach = size_bytes - (guest.value & (size_bytes - 1));
    use_run(state_, found->address, rest().first(std::min<std::uint64_t>(length, reach)), step);
  }

  /// The IOMMU refused the request for here().
  std::optional<DmaFault> refused(iommu::Cause cause) {
    if (untranslated_) return fault_here(reason_of(cause));
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

  /// The access of the step is over. What waits for it in the IOMMU runs now, and may reset the
  /// function, which waits for its accesses and slots, or remove the region: it finds none of this
  /// one.
  static void over(Step& step) {
    step.io = {};
    step.in_flight = {};
    step.slot.free();
    step.hold = {};
    step.slot = {};
  }

  std::optional<DmaFault> access_io(Step& step) {
    if (thread_state.windows != 0) {
      over(step);
      return fault_here(Reason::kNotMappable);
    }
    const memory::Outcome outcome = memory::access(step.io, rest().first(step.length));
    over(step);
    progress(outcome.done_bytes);
    return outcome.ok() ? std::nullopt : memory_fault(outcome.fault);
  }

  /// The memory behind the translation refused. It may have been remapped to other memory since the
  /// ATC got it: asks once per page, and goes on if the answer is good. The IOMMU translated an
  /// untranslated request just now: its page is present, and asking would change nothing.
  std::optional<DmaFault> memory_fault(Fault why) {
    if (why == Fault::kPoisoned) return fault_here(Reason::kPoisoned);
    const std::uint64_t page = here().value & ~(kPageBytes - 1);
    if (untranslated_ || !state_.requests_pages() || refused_page_ == page ||
        thread_state.windows != 0) {
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

  /// Translates and copies in one section.
  Step untranslated() {
    const std::scoped_lock reader(rcu_default_domain());
    if (!translator_.alive()) return ended();
    return use_untranslated(state_, requester_, access_, here(), rest());
  }

  static Step ended() {
    Step step;
    step.ended = true;
    return step;
  }

  /// Whether what was just received for here() is not to be used.
  bool is_untranslated_only() const {
    return fresh_ && fresh_->untranslated_only && fresh_->translation.covers(here().value);
  }

  std::optional<DmaFault> finish_msi(Step& step) {
    const auto& [file, stored] = *step.msi;
    state_.port->finish_msi(requester_, file, here(), stored);
    over(step);
    if (stored) {
      progress(step.length);
      return std::nullopt;
    }
    const bool poisoned = stored.error() == iommu::Cause::kMsiMrifCorrupt;
    return fault_here(poisoned ? Reason::kPoisoned : Reason::kMemory);
  }

  EndpointState& state_;
  Requester requester_;
  Access access_;
  Translator translator_;
  bool uses_ats_;
  bool untranslated_ = false;  // the request of this step
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
template <Access kAccess, class Byte>
bool hit(EndpointState& state, const Requester& requester, Iova at, std::span<Byte> bytes) {
  if (bytes.size() > kSectionBytes || state.tapped.load(std::memory_order_relaxed)) return false;
  {
    const std::scoped_lock reader(rcu_default_domain());
    std::byte* const host =
        cached_host(state, SpaceKey(requester.pasid), at, bytes.size(),
                    needed_permissions(requester, kAccess), state.memory().version());
    if (host == nullptr) return false;
    copy(host, bytes);
  }
  count_hits(state, 1);
  return true;
}

/// Apart from a hit, which needs few registers.
template <class Byte>
[[gnu::noinline]] DmaResult transfer(EndpointState& state, const Requester& requester, Iova at,
                                     std::span<Byte> bytes, Access access) {
  return Transfer<Byte>(state, requester, at, bytes, access).run();
}

template <Access kAccess, class Byte>
DmaResult start(EndpointState& state, const Requester& requester, Iova at, std::span<Byte> bytes) {
  if (bytes.empty()) return {};
  if (hit<kAccess>(state, requester, at, bytes)) return {bytes.size(), std::nullopt};
  return transfer(state, requester, at, bytes, kAccess);
}

}  // namespace

bool copy_cached(EndpointState& state, const Requester& requester, Iova from, Iova to,
                 std::size_t length) {
  if (length > kSectionBytes || state.tapped.load(std::memory_order_relaxed)) return false;
  const SpaceKey space(requester.pasid);
  const unsigned read = needed_permissions(requester, Access::kRead);
  const unsigned write = needed_permissions(requester, Access::kWrite);
  {
    const std::scoped_lock reader(rcu_default_domain());
    const std::uint64_t version = state.memory().version();
    const std::byte* source = cached_host(state, space, from, length, read, version);
    if (source == nullptr) return false;
    std::byte* target = cached_host(state, space, to, length, write, version);
    if (target == nullptr) return false;
    std::memmove(target, source, length);
  }
  count_hits(state, 2);
  return true;
}

DmaResult read(EndpointState& state, const Requester& requester, Iova at, std::span<std::byte> to) {
  return start<Access::kRead>(state, requester, at, to);
}

DmaResult fetch(EndpointState& state, const Requester& requester, Iova at,
                std::span<std::byte> to) {
  return start<Access::kExecute>(state, requester, at, to);
}

DmaResult write(EndpointState& state, const Requester& requester, Iova at,
                std::span<const std::byte> from) {
  return start<Access::kWrite>(state, requester, at, from);
}

DmaResult write_untranslated(EndpointState& state, Iova at, std::span<const std::byte> from) {
  return Transfer<const std::byte>(state, {}, at, from, Access::kWrite, /*translates=*/false).run();
}

}  // namespace tandem::pcie::detail
