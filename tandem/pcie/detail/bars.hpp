// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "tandem/memory/memory.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie::detail {

/// The base address registers' ranges as regions of memory. One thread at a time.
class Bars {
 public:
  Bars(const std::vector<Bar>& bars, memory::Memory* memory) : memory_(memory), bars_(bars) {
    placed_.resize(bars.size());
  }
  ~Bars();
  Bars(const Bars&) = delete;
  Bars& operator=(const Bars&) = delete;

  /// Whether `bars` are such that six registers hold them, and have a memory to be in.
  static bool fit(const std::vector<Bar>& bars, const memory::Memory* memory);

  /// Makes bar `index` decode at `address`, or nowhere. Where that is taken, or no memory is, it
  /// decodes nothing.
  void place(std::size_t index, std::optional<std::uint64_t> address);

 private:
  struct Placed {
    std::optional<std::uint64_t> address;
    std::optional<memory::RegionId> region;
  };
  memory::Memory* memory_;
  const std::vector<Bar>& bars_;
  std::vector<Placed> placed_;
};

}  // namespace tandem::pcie::detail
