// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/value_table.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

namespace tandem::kxo::detail {
namespace {

std::uint32_t power_of_three(int exponent) noexcept {
  std::uint32_t power = 1;
  for (int i = 0; i < exponent; ++i) power *= 3;
  return power;
}

}  // namespace

ValueTable::ValueTable(const Rules& rules)
    : ValueModel(rules),
      canonical_(rules),
      indices_(power_of_three(rules.cells())),
      slots_(1 << 10) {}

std::size_t ValueTable::first_slot_of(std::uint32_t index) const noexcept {
  return (index * std::uint64_t{0x9e3779b97f4a7c15} >> 32) & (slots_.size() - 1);
}

/// Where `index` is, or would be. Linear probing; the table is never full.
std::size_t ValueTable::slot_of(std::uint32_t index) const noexcept {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = first_slot_of(index);
  while (slots_[at].index != index && slots_[at].index != kEmpty) at = (at + 1) & mask;
  return at;
}

float ValueTable::value(const Position& position) const noexcept {
  return slots_[slot_of(canonical_.of(position))].value;
}

void ValueTable::learn(const Position& position, float target, float rate) {
  learn_at(canonical_.of(position), target, rate);
}

Lesson ValueTable::lesson(const Position& position, float target) const noexcept {
  return {position, target, canonical_.of(position)};
}

/// The table does not fit in a cache: its slots are fetched ahead.
void ValueTable::learn(std::span<const Lesson> lessons, float rate) {
  constexpr std::size_t kAhead = 32;
  const auto fetch = [this](const Lesson& lesson) {
    __builtin_prefetch(&slots_[first_slot_of(lesson.key)], 1);
  };
  for (const Lesson& lesson : lessons.first(std::min(kAhead, lessons.size()))) fetch(lesson);
  for (std::size_t i = 0; i < lessons.size(); ++i) {
    if (i + kAhead < lessons.size()) fetch(lessons[i + kAhead]);
    learn_at(lessons[i].key, lessons[i].target, rate);
  }
}

void ValueTable::learn_at(std::uint32_t index, float target, float rate) {
  std::size_t at = slot_of(index);
  if (slots_[at].index == kEmpty) {
    if (++used_ * 2 > slots_.size()) {
      grow();
      at = slot_of(index);
    }
    slots_[at].index = index;
  }
  slots_[at].value += rate * (target - slots_[at].value);
}

void ValueTable::grow() {
  Slots before(slots_.size() * 2);
  before.swap(slots_);
  for (const Slot& slot : before) {
    if (slot.index != kEmpty) slots_[slot_of(slot.index)] = slot;
  }
}

/// What is used, in the order of the indices: by their lower digits, then by the upper ones. A
/// million slots take two fifths of the time with std::sort(), and evaluations sort them.
std::vector<ValueTable::Slot> ValueTable::sorted() const {
  std::vector<Slot> used, sorted(used_);
  used.reserve(used_);
  for (const Slot& slot : slots_) {
    if (slot.index != kEmpty) used.push_back(slot);
  }
  constexpr int kDigitBits = 9;
  for (int shift = 0; indices_ >> shift != 0; shift += kDigitBits) {
    const auto digit = [shift](const Slot& slot) {
      return slot.index >> shift & ((1U << kDigitBits) - 1);
    };
    std::vector<std::size_t> places((1U << kDigitBits) + 1);
    for (const Slot& slot : used) ++places[digit(slot) + 1];
    std::partial_sum(places.begin(), places.end(), places.begin());
    for (const Slot& slot : used) sorted[places[digit(slot)]++] = slot;
    used.swap(sorted);
  }
  return used;
}

std::vector<Position> ValueTable::positions() const {
  std::vector<Position> positions;
  positions.reserve(used_);
  for (const Slot& slot : sorted()) {
    Position& position = positions.emplace_back();
    std::uint32_t digits = slot.index;
    for (int cell = 0; digits != 0; digits /= 3, ++cell) {
      if (digits % 3 == 1) position.o |= cell_bit(cell);
      if (digits % 3 == 2) position.x |= cell_bit(cell);
    }
  }
  return positions;
}

/// Pairs of an index and a value: the same table is the same file.
std::vector<std::uint32_t> ValueTable::save() const {
  std::vector<std::uint32_t> words;
  words.reserve(used_ * 2);
  for (const Slot& slot : sorted()) {
    words.push_back(slot.index);
    words.push_back(std::bit_cast<std::uint32_t>(slot.value));
  }
  return words;
}

bool ValueTable::load(const std::vector<std::uint32_t>& words) {
  if (words.size() % 2 != 0) return false;
  Slots slots(std::max(std::size_t{1} << 10, std::bit_ceil(words.size() + 1)));
  slots_.swap(slots);
  used_ = 0;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    const auto value = std::bit_cast<float>(words[i + 1]);
    const std::size_t at = slot_of(words[i]);
    if (words[i] >= indices_ || slots_[at].index != kEmpty || !(std::abs(value) <= 1)) return false;
    slots_[at] = {words[i], value};
    ++used_;
  }
  return true;
}

}  // namespace tandem::kxo::detail
