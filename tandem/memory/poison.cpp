// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/detail/poison.hpp"

#include <algorithm>

#include "tandem/base/check.hpp"

namespace tandem::memory::detail {
namespace {

constexpr std::uint64_t round_up_to_granule(std::uint64_t offset) {
  return (offset + kPoisonBytes - 1) / kPoisonBytes;
}

}  // namespace

std::unique_ptr<PoisonMap> PoisonMap::create(std::uint64_t size_bytes) {
  static_assert(sizeof(Word) == sizeof(std::uint64_t));
  const std::uint64_t words = round_up_to_granule(size_bytes) / kBits + 1;
  const std::uint64_t of_groups = words / kGroup + 1;
  auto bits =
      Mapping::anonymous(round_up_to_page((words + of_groups) * sizeof(Word)), /*reserve=*/false);
  TANDEM_CHECK(bits.has_value());
  return std::unique_ptr<PoisonMap>(new PoisonMap(std::move(*bits), words));
}

/// Calls `change(word, mask)` for the bits of [first_granule, end_granule).
template <class Change>
void PoisonMap::for_words(std::uint64_t first_granule, std::uint64_t end_granule, Change change) {
  for (std::uint64_t granule = first_granule; granule < end_granule;) {
    const std::uint64_t next = std::min(end_granule, (granule / kBits + 1) * kBits);
    const std::uint64_t low = bit(granule) - 1;
    const std::uint64_t high = next % kBits == 0 ? ~std::uint64_t{0} : bit(next) - 1;
    change(word(granule), high & ~low);
    granule = next;
  }
}

void PoisonMap::set(std::uint64_t first, std::uint64_t size_bytes) {
  const std::uint64_t begin = first / kPoisonBytes;
  const std::uint64_t end = round_up_to_granule(first + size_bytes);
  for_words(begin, end,
            [](Word& word, std::uint64_t mask) { word.fetch_or(mask, std::memory_order_acq_rel); });
  for (std::uint64_t group = begin / kGroup; group * kGroup < end; ++group) {
    groups(group).fetch_or(bit(group), std::memory_order_acq_rel);
  }
}

void PoisonMap::clear(std::uint64_t first, std::uint64_t size_bytes) {
  for_words(first / kPoisonBytes, round_up_to_granule(first + size_bytes),
            [](Word& word, std::uint64_t mask) {
              // Most writes meet none.
              if ((word.load(std::memory_order_relaxed) & mask) != 0) {
                word.fetch_and(~mask, std::memory_order_acq_rel);
              }
            });
}

void PoisonMap::clear_written(std::uint64_t first, std::uint64_t size_bytes) {
  const std::uint64_t begin = round_up_to_granule(first) * kPoisonBytes;
  const std::uint64_t end = (first + size_bytes) / kPoisonBytes * kPoisonBytes;
  if (begin < end) clear(begin, end - begin);
}

std::uint64_t PoisonMap::skip_clean(std::uint64_t granule) const {
  const std::uint64_t group = granule / kGroup;
  const std::uint64_t rest = groups(group).load(std::memory_order_acquire) & ~(bit(group) - 1);
  if (rest == 0) return (group / kBits + 1) * kBits * kGroup;
  const std::uint64_t held =
      group / kBits * kBits + static_cast<std::uint64_t>(__builtin_ctzll(rest));
  return std::max(granule, held * kGroup);
}

std::optional<std::uint64_t> PoisonMap::find(std::uint64_t first, std::uint64_t size_bytes) const {
  const std::uint64_t end = round_up_to_granule(first + size_bytes);
  for (std::uint64_t granule = first / kPoisonBytes; granule < end;) {
    if (const std::uint64_t next = skip_clean(granule); next != granule) {
      granule = next;
      continue;
    }
    const std::uint64_t rest = word(granule).load(std::memory_order_acquire) & ~(bit(granule) - 1);
    const std::uint64_t next = (granule / kBits + 1) * kBits;
    if (rest != 0) {
      const std::uint64_t found = next - kBits + static_cast<std::uint64_t>(__builtin_ctzll(rest));
      if (found >= end) return std::nullopt;
      return std::max(first, found * kPoisonBytes);
    }
    granule = next;
  }
  return std::nullopt;
}

}  // namespace tandem::memory::detail
