// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "tandem/kxo/detail/huge_pages.hpp"
#include "tandem/kxo/detail/symmetry.hpp"
#include "tandem/kxo/value_model.hpp"

namespace tandem::kxo::detail {

/// A value for each position that was learned about, one for all its images: a hash table that
/// grows, 8 bytes a slot.
class ValueTable final : public ValueModel {
 public:
  static constexpr int kMostCells = 16;
  explicit ValueTable(const Rules& rules);

  Kind kind() const noexcept override { return Kind::kTable; }
  float value(const Position& position) const noexcept override;
  void learn(const Position& position, float target, float rate) override;
  Lesson lesson(const Position& position, float target) const noexcept override;
  void learn(std::span<const Lesson> lessons, float rate) override;
  std::vector<Position> positions() const override;
  std::vector<std::uint32_t> save() const override;
  bool load(const std::vector<std::uint32_t>& words) override;

 private:
  struct Slot {
    std::uint32_t index = kEmpty;
    float value = 0;
  };
  using Slots = std::vector<Slot, HugePageAllocator<Slot>>;
  static constexpr std::uint32_t kEmpty = ~0U;

  std::vector<Slot> sorted() const;
  std::size_t first_slot_of(std::uint32_t index) const noexcept;
  void learn_at(std::uint32_t index, float target, float rate);
  std::size_t slot_of(std::uint32_t index) const noexcept;
  void grow();

  CanonicalIndex canonical_;
  std::uint32_t indices_;  // 3^cells
  Slots slots_;
  std::size_t used_ = 0;
};

}  // namespace tandem::kxo::detail
