// SPDX-License-Identifier: Apache-2.0
#include <mutex>

#include "tandem/pcie/detail/endpoint_state.hpp"
#include "tandem/pcie/detail/translate.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie::detail {
namespace {

using rcu::rcu_default_domain;
using Reason = DmaFault::Reason;

/// A process that keeps unmapping what we map makes its caller copy.
constexpr unsigned kMaxTries = 8;

Unexpected<DmaFault> not_mappable(Iova at) {
  return Unexpected{DmaFault{Reason::kNotMappable, at}};
}

class Mapper {
 public:
  Mapper(EndpointState& state, const Requester& requester, Iova at, std::size_t length,
         Access access)
      : state_(state), translator_(state, requester, access), at_(at), length_(length) {}

  Result<Mapped, DmaFault> run() {
    if (!translator_.permitted()) return Unexpected{DmaFault{Reason::kDisabled, at_}};
    if (!translator_.uses_ats()) return not_mappable(at_);
    for (unsigned tries = 0; tries < kMaxTries; ++tries) {
      const auto slot = state_.slots.claim(translator_.space(), thread_shard());
      if (!slot) return not_mappable(at_);
      const Look look = look_up();
      if (look.found == Found::kAll) {
        count_hits(look.translations);
        ++thread_state.windows;
        return Mapped{*slot, {look.host, length_}};
      }
      state_.release(*slot);
      if (look.found == Found::kDisabled) return Unexpected{DmaFault{Reason::kDisabled, at_}};
      if (look.found == Found::kNotOneRun) return not_mappable(at_.plus(look.length));
      if (const auto fault = take_faults()) return Unexpected{*fault};
    }
    return not_mappable(at_);
  }

 private:
  enum class Found { kAll, kMissing, kNotOneRun, kDisabled };
  struct Look {
    Found found = Found::kAll;
    std::uint64_t length = 0;  // found so far
    std::byte* host = nullptr;
    std::uint64_t translations = 0;
  };

  /// Looks the whole range up in the ATC alone. The slot is ours already, so an invalidation that
  /// comes after this section waits for it, and one that came before hides the translations.
  Look look_up() const {
    const std::scoped_lock reader(rcu_default_domain());
    const std::uint64_t version = state_.memory().version();
    Look look;
    if (!translator_.alive()) {
      look.found = Found::kDisabled;
      return look;
    }
    while (look.length < length_) {
      const std::uint64_t at = at_.value + look.length;
      CachedTranslation found;
      if (!state_.atc.lookup(translator_.space(), at, translator_.permissions(), version, found)) {
        look.found = Found::kMissing;
        return look;
      }
      std::byte* const host = found.host == nullptr ? nullptr : found.host + found.offset(at);
      if (look.length == 0) look.host = host;
      if (host == nullptr || host != look.host + look.length) {
        look.found = Found::kNotOneRun;
        return look;
      }
      look.length += found.reach(at);
      ++look.translations;
    }
    return look;
  }

  /// Translates what is not in the ATC, with page requests. Stops early where the range turns out
  /// not to be host RAM.
  std::optional<DmaFault> take_faults() {
    std::uint64_t length = 0;
    while (length < length_) {
      const Iova at = at_.plus(length);
      if (const std::uint64_t reach = cached_reach(at)) {
        length += reach;
        continue;
      }
      count_miss();
      const auto fresh = translator_.translate(at);
      if (!fresh) return DmaFault{fresh.error(), at};
      translator_.progressed();
      if (fresh->translation.host == nullptr) return DmaFault{Reason::kNotMappable, at};
      length += fresh->translation.reach(at.value);
    }
    return std::nullopt;
  }

  std::uint64_t cached_reach(Iova at) const {
    const std::scoped_lock reader(rcu_default_domain());
    CachedTranslation found;
    return state_.atc.lookup(translator_.space(), at.value, translator_.permissions(),
                             state_.memory().version(), found)
               ? found.reach(at.value)
               : 0;
  }

  void count_miss() {
    ++missed_;
    state_.stats.add({.translations = 1});
    ++thread_state.stats.translations;
  }
  void count_hits(std::uint64_t translations) {
    const std::uint64_t hits = translations > missed_ ? translations - missed_ : 0;
    state_.stats.add({.translations = hits, .atc_hits = hits});
    thread_state.stats.translations += hits;
    thread_state.stats.atc_hits += hits;
  }

  EndpointState& state_;
  Translator translator_;
  Iova at_;
  std::size_t length_;
  std::uint64_t missed_ = 0;
};

}  // namespace

Result<Mapped, DmaFault> map(EndpointState& state, const Requester& requester, Iova at,
                             std::size_t length, Access access) {
  if (length == 0) return not_mappable(at);
  if (at.value > ~std::uint64_t{0} - (length - 1)) {
    return Unexpected{DmaFault{Reason::kWraps, at}};
  }
  return Mapper(state, requester, at, length, access).run();
}

}  // namespace tandem::pcie::detail
