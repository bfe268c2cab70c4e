// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "tandem/memory/memory.hpp"

namespace tandem::memory::detail {

/// One region. Freed by remove(), after the grace period and the last pin.
struct Region {
  static constexpr std::uint32_t kRemoving = std::uint32_t{1} << 31;

  std::uint64_t base = 0;
  std::uint64_t size_bytes = 0;
  std::byte* host = nullptr;  // host RAM; nullptr for an I/O region
  bool writable = true;
  std::shared_ptr<IoRegion> io;
  /// Pins; kRemoving is set by remove(), which then waits on this word. Pins are taken inside
  /// reader sections that still see the region, so the count cannot grow once the grace period is
  /// over.
  std::atomic<std::uint32_t> pins{0};
};

/// At most kCapacity regions, sorted by base. Immutable once published.
struct Chunk {
  static constexpr std::size_t kCapacity = 128;
  struct Entry {
    std::uint64_t base;
    std::uint64_t size_bytes;
    Region* region;
  };

  std::array<Entry, kCapacity> entries;
  std::size_t count = 0;

  /// The last entry whose base is at most `address`, or nullptr.
  const Entry* at_or_below(std::uint64_t address) const {
    const Entry* const end = entries.data() + count;
    const Entry* const above = std::upper_bound(
        entries.data(), end, address,
        [](std::uint64_t value, const Entry& entry) { return value < entry.base; });
    return above == entries.data() ? nullptr : above - 1;
  }
};

/// Every region, sorted. Immutable once published; a change shares the chunks it does not touch.
struct View {
  struct Part {
    std::uint64_t base;  // of the first entry
    Chunk* chunk;
  };
  std::vector<Part> parts;

  /// Index of the part whose entries may hold `address`; 0 when it lies below all of them.
  std::size_t part_for(std::uint64_t address) const {
    const auto above =
        std::upper_bound(parts.begin(), parts.end(), address,
                         [](std::uint64_t value, const Part& part) { return value < part.base; });
    return above == parts.begin() ? 0 : static_cast<std::size_t>(above - parts.begin()) - 1;
  }

  /// The region that decodes `address`, or nullptr.
  Region* find(std::uint64_t address) const {
    if (parts.empty()) return nullptr;
    const Chunk::Entry* const entry = parts[part_for(address)].chunk->at_or_below(address);
    return entry != nullptr && address - entry->base < entry->size_bytes ? entry->region : nullptr;
  }

  /// Whether [base, base + size_bytes) meets a region.
  bool overlaps(std::uint64_t base, std::uint64_t size_bytes) const;
};

/// A view after one change, and what it no longer uses.
struct Change {
  std::unique_ptr<View> view;
  std::unique_ptr<Chunk> dropped;
};
Change with_region(const View& view, Region& region);
Change without_region(const View& view, const Region& region);

}  // namespace tandem::memory::detail
