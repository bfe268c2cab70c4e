// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "tandem/kxo/rules.hpp"

namespace tandem::kxo::detail {

/// What earlier searches found out about positions; one that comes later takes the place.
/// Thread safety: one thread at a time.
class TranspositionTable {
 public:
  enum class Bound : std::uint8_t { kNone, kLower, kUpper, kExact };
  struct Entry {
    std::uint64_t key = 0;
    std::int16_t score = 0;
    std::uint8_t depth = 0;
    std::uint8_t move = 0;
    Bound bound = Bound::kNone;
  };

  /// 2^`log2_entries` of them, 16 bytes each, in pages that are touched when they are used.
  explicit TranspositionTable(unsigned log2_entries) : log2_entries_(log2_entries) { clear(); }

  void clear() {
    entries_.reset();
    entries_.reset(
        static_cast<Entry*>(std::calloc(std::size_t{1} << log2_entries_, sizeof(Entry))));
    if (entries_ == nullptr) throw std::bad_alloc();
  }

  /// The position's key: one to one for boards of up to 32 cells, else different ones meet with a
  /// probability of 2^-64. Not 0 but for an empty board.
  static std::uint64_t key(const Position& position) noexcept {
    if ((position.taken() >> 32) == 0) return position.o | position.x << 32;
    const std::uint64_t mixed = (position.o ^ 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
    return (mixed ^ (mixed >> 29)) + position.x * 0x94d049bb133111eb;
  }
  /// The entry's place; its key says whether it is this position's.
  Entry& at(std::uint64_t key) noexcept {
    return entries_[(key * 0x9e3779b97f4a7c15) >> (64 - log2_entries_)];
  }

 private:
  struct Free {
    void operator()(Entry* entries) const noexcept { std::free(entries); }
  };
  unsigned log2_entries_;
  std::unique_ptr<Entry[], Free> entries_;
};
static_assert(sizeof(TranspositionTable::Entry) == 16);

}  // namespace tandem::kxo::detail
