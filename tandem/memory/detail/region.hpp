// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "tandem/memory/detail/poison.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::memory::detail {

/// One region: host RAM, I/O, or an alias. Freed by remove(), after the grace period and the last
/// pin.
struct Region {
  static constexpr std::uint32_t kRemoving = std::uint32_t{1} << 31;

  std::uint64_t base = 0;
  std::uint64_t size_bytes = 0;
  std::byte* host = nullptr;  // host RAM
  bool writable = true;
  bool is_alias = false;
  int priority = 0;
  std::shared_ptr<IoRegion> io;  // I/O
  AccessSizes sizes;
  bool looks_after_accesses = false;
  Region* target = nullptr;         // an alias of a region; nullptr where it is one of addresses
  std::uint64_t target_offset = 0;  // in `target`, or an address
  std::uint32_t aliases = 0;        // whose target this is; under the memory's mutex
  /// What of host RAM is poisoned; none until something was.
  std::atomic<PoisonMap*> poison{nullptr};
  /// Pins; kRemoving is set by remove(), which then waits on this word. Pins are taken inside
  /// reader sections that still see the region, so the count cannot grow once the grace period is
  /// over.
  std::atomic<std::uint32_t> pins{0};

  ~Region() { delete poison.load(std::memory_order_relaxed); }
};

}  // namespace tandem::memory::detail
