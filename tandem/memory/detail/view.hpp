// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include "tandem/memory/detail/region.hpp"

namespace tandem::memory::detail {

/// At most kCapacity visible pieces of regions, sorted by base. Immutable once published.
struct Chunk {
  static constexpr std::size_t kCapacity = 128;
  struct Entry {
    std::uint64_t base;
    std::uint64_t size_bytes;
    Region* region;

    std::uint64_t end() const { return base + size_bytes; }
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

/// What decodes an address: `length` bytes from `offset` on, and `before` bytes before that, in a
/// region that is no alias.
struct Decoded {
  Region* region = nullptr;
  std::uint64_t offset = 0;
  std::uint64_t before = 0;
  std::uint64_t length = 0;
  bool writable = false;
};

/// What of every region is visible, sorted. Immutable once published; a change shares the chunks it
/// does not touch.
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

  /// The visible piece that holds `address`, or nullptr.
  [[gnu::always_inline]] const Chunk::Entry* entry_at(std::uint64_t address) const {
    if (parts.empty()) return nullptr;
    const Chunk::Entry* const entry = parts[part_for(address)].chunk->at_or_below(address);
    return entry != nullptr && address - entry->base < entry->size_bytes ? entry : nullptr;
  }

  /// Calls `use` for what decodes `address`, through aliases; with no region where nothing does, or
  /// where more than kMaxAliases lead to each other. (Where no alias is, what was found stays in
  /// CPU registers.)
  template <class Use>
  [[gnu::always_inline]] auto find(std::uint64_t address, const Use& use) const {
    const Chunk::Entry* const entry = entry_at(address);
    if (entry == nullptr) return use(Decoded{});
    Region& region = *entry->region;
    if (!region.is_alias) [[likely]] {
      return use(Decoded{&region, address - region.base, address - entry->base,
                         entry->end() - address, region.writable});
    }
    return use(find_through(*entry, address));
  }
  Decoded find(std::uint64_t address) const {
    return find(address, [](const Decoded& found) { return found; });
  }

 private:
  static constexpr unsigned kMaxAliases = 8;
  Decoded find_through(const Chunk::Entry& alias, std::uint64_t address) const;
};

/// Every region by priority and base. Regions of one priority do not overlap.
class Layers {
 public:
  /// Whether a region of `priority` meets [base, base + size_bytes).
  bool overlaps(int priority, std::uint64_t base, std::uint64_t size_bytes) const;
  void insert(Region& region) { layers_[region.priority].emplace(region.base, &region); }
  void erase(const Region& region);
  /// What is visible in [first, end): of the regions that hold an address the one with the highest
  /// priority.
  std::vector<Chunk::Entry> flatten(std::uint64_t first, std::uint64_t end) const;

 private:
  using Layer = std::map<std::uint64_t, Region*>;
  using ByPriority = std::map<int, Layer, std::greater<>>;
  static Layer::const_iterator first_meeting(const Layer& layer, std::uint64_t first);
  static void fill(std::vector<Chunk::Entry>& entries, ByPriority::const_iterator layer,
                   ByPriority::const_iterator last, std::uint64_t first, std::uint64_t end);

  ByPriority layers_;
};

/// A view after one change, and what it no longer uses.
struct Change {
  std::unique_ptr<View> view;
  std::vector<std::unique_ptr<Chunk>> dropped;
};
/// `view` with what is visible in [first, end) taken from `layers`.
Change refreshed(const View& view, const Layers& layers, std::uint64_t first, std::uint64_t end);

}  // namespace tandem::memory::detail
