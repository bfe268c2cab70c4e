// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "tandem/base/mapping.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::memory::detail {

/// Which granules of a region are poisoned: a bit for each, and above them one for each group of
/// words that has ever held a bit, so that a search passes over what never did.
///
/// Thread safety: all calls, from any thread. Who sets poison and needs it to be seen waits for a
/// grace period (Memory::set_poison()).
class PoisonMap {
 public:
  /// Nothing poisoned, of `size_bytes` of memory. Its own memory is used only where bits are set.
  static std::unique_ptr<PoisonMap> create(std::uint64_t size_bytes);

  /// Poisons every granule that meets [first, first + size_bytes).
  void set(std::uint64_t first, std::uint64_t size_bytes);
  /// Takes the poison from every granule that meets the range.
  void clear(std::uint64_t first, std::uint64_t size_bytes);
  /// Takes it from the granules that lie in the range as a whole: they were written.
  void clear_written(std::uint64_t first, std::uint64_t size_bytes);
  /// The first byte of the range that is poisoned.
  std::optional<std::uint64_t> find(std::uint64_t first, std::uint64_t size_bytes) const;
  bool at(std::uint64_t offset) const {
    const std::uint64_t granule = offset / kPoisonBytes;
    return (word(granule).load(std::memory_order_acquire) & bit(granule)) != 0;
  }

 private:
  using Word = std::atomic<std::uint64_t>;
  static constexpr std::uint64_t kBits = 64;
  static constexpr std::uint64_t kGroup = kBits * kBits;  // granules

  PoisonMap(Mapping bits, std::uint64_t words) : bits_(std::move(bits)), words_(words) {}
  static constexpr std::uint64_t bit(std::uint64_t granule) {
    return std::uint64_t{1} << (granule % kBits);
  }
  Word& word(std::uint64_t granule) const {
    return reinterpret_cast<Word*>(bits_.data())[granule / kBits];
  }
  Word& groups(std::uint64_t group) const {
    return reinterpret_cast<Word*>(bits_.data())[words_ + group / kBits];
  }
  /// The first granule from `granule` on that is in a group that has ever held poison, or one past
  /// some of those that never did.
  std::uint64_t skip_clean(std::uint64_t granule) const;
  template <class Change>
  void for_words(std::uint64_t first_granule, std::uint64_t end_granule, Change change);

  Mapping bits_;         // zeroed pages are words without a bit
  std::uint64_t words_;  // of granules; those of groups follow
};

}  // namespace tandem::memory::detail
