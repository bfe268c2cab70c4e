// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/bars.hpp"

#include <bit>

#include "tandem/base/mapping.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::pcie::detail {

bool Bars::fit(const std::vector<Bar>& bars, const memory::Memory* memory) {
  constexpr std::uint64_t k32BitLimit = std::uint64_t{1} << 31;
  unsigned registers = 0;
  for (const Bar& bar : bars) {
    if (bar.region == nullptr || memory == nullptr) return false;
    if (bar.size_bytes < kPageSize || !std::has_single_bit(bar.size_bytes)) return false;
    if (!bar.is_64_bit && bar.size_bytes > k32BitLimit) return false;
    registers += bar.is_64_bit ? 2 : 1;
  }
  return registers <= config::kBars;
}

Bars::~Bars() {
  for (std::size_t index = 0; index < placed_.size(); ++index) place(index, std::nullopt);
}

void Bars::place(std::size_t index, std::optional<std::uint64_t> address) {
  Placed& placed = placed_[index];
  // One that found no room is tried again: what was in the way may be gone.
  if (placed.address == address && (placed.region || !address)) return;
  if (placed.region) (void)memory_->remove(*placed.region);
  placed = {address, std::nullopt};
  if (!address) return;
  const auto region =
      memory_->add_io(memory::PhysAddr{*address}, bars_[index].size_bytes, bars_[index].region);
  if (region) placed.region = *region;
}

}  // namespace tandem::pcie::detail
