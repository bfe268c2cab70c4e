// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/atc.hpp"

#include <thread>

#include "tandem/base/planted_fault.hpp"

namespace tandem::pcie::detail {

Atc::Atc() : sets_(std::make_unique<Set[]>(kSets)) {}

void Atc::fill(SpaceKey space, const Ticket& ticket, const CachedTranslation& translation) {
  const std::uint64_t size_bit = std::uint64_t{1} << translation.log2_size;
  // Set before (F1), so that an invalidation that does not see the bit is seen at (F2).
  if ((sizes_.load(std::memory_order_seq_cst) & size_bit) == 0) {
    sizes_.fetch_or(size_bit, std::memory_order_seq_cst);
  }
  const std::uint64_t where =
      make_where(translation.iova, translation.log2_size, translation.permissions);
  const std::uint64_t tag = make_tag(space, ticket.epoch);
  Set& set = set_for(space, translation.iova, translation.log2_size);
  Entry* victim = nullptr;
  for (Entry& entry : set.ways) {
    const bool same = entry.word(kWhere) == where && entry.word(kTag) == tag;
    if (same || (victim == nullptr && entry.word(kWhere) == 0)) {
      victim = &entry;
      if (same) break;
    }
  }
  // Neither there nor free: evict the entry that was written less often.
  if (victim == nullptr) {
    victim = &set.ways[0];
    for (Entry& entry : set.ways) {
      if (entry.begin() < victim->begin()) victim = &entry;
    }
  }
  const std::uint64_t begun = victim->begin();
  if (!victim->try_begin_write(begun)) return;                                           // (F1)
  if (control(space).generation.load(std::memory_order_seq_cst) == ticket.generation ||  // (F2)
      planted_fault("pcie-late-fill")) {
    victim->set(kWhere, where);
    victim->set(kTag, tag);
    victim->set(kPhysical, translation.physical | translation.permissions);
    victim->set(kHost, reinterpret_cast<std::uintptr_t>(translation.host));
    victim->set(kVersion, translation.version);
  }
  victim->end_write(begun);
}

void Atc::drop(Entry& entry, SpaceKey space, std::uint64_t where) {
  constexpr std::uint64_t kSpaceMask = (std::uint64_t{1} << SpaceKey::kBits) - 1;
  for (unsigned spins = 0;; ++spins) {
    const std::uint64_t begun = entry.begin(std::memory_order_seq_cst);  // (I2)
    if (!Entry::is_being_written(begun)) {
      const bool match = (entry.word(kWhere) & ~std::uint64_t{kPrivileged}) == where &&
                         (entry.word(kTag) & kSpaceMask) == space.value();
      if (!match && entry.ended(begun)) return;
      if (match && entry.try_begin_write(begun)) {
        entry.set(kWhere, 0);
        entry.end_write(begun);
        return;
      }
    }
    // A writer is between two stores; it may have been preempted.
    if (spins < 64) {
      cpu_pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void Atc::invalidate(SpaceKey space, std::uint64_t first, std::uint64_t size_bytes) {
  Control& of = control(space);
  of.generation.fetch_add(1, std::memory_order_seq_cst);  // (I1)
  const std::uint64_t sizes = sizes_.load(std::memory_order_seq_cst);
  const std::uint64_t last = first + size_bytes - 1;  // size 0: from 0 to the end, or wraps
  std::uint64_t probes = size_bytes == 0 || last < first ? kMaxProbes + 1 : 0;
  for (std::uint64_t rest = sizes; rest != 0 && probes <= kMaxProbes; rest &= rest - 1) {
    const auto log2_size = static_cast<unsigned>(__builtin_ctzll(rest));
    probes += (last >> log2_size) - (first >> log2_size) + 1;
  }
  if (probes > kMaxProbes) {
    of.epoch.fetch_add(1, std::memory_order_seq_cst);
    return;
  }
  for (std::uint64_t rest = sizes; rest != 0; rest &= rest - 1) {
    const auto log2_size = static_cast<unsigned>(__builtin_ctzll(rest));
    for (std::uint64_t page = first >> log2_size; page <= last >> log2_size; ++page) {
      const std::uint64_t at = page << log2_size;
      for (Entry& entry : set_for(space, at, log2_size).ways) {
        drop(entry, space, make_where(at, log2_size, /*permissions=*/0));
      }
    }
  }
}

void Atc::invalidate_all_pasids() {
  for (std::size_t i = 0; i < kControls; ++i) {
    controls_[i].generation.fetch_add(1, std::memory_order_seq_cst);  // (I1)
    controls_[i].epoch.fetch_add(1, std::memory_order_seq_cst);
  }
}

}  // namespace tandem::pcie::detail
