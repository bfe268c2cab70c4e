// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/detail/view.hpp"

namespace tandem::memory::detail {
namespace {

View::Part make_part(const Chunk::Entry* first, const Chunk::Entry* last) {
  auto chunk = std::make_unique<Chunk>();
  std::copy(first, last, chunk->entries.data());
  chunk->count = static_cast<std::size_t>(last - first);
  return {first->base, chunk.release()};
}

/// `view` with part `index` (none when past the end) replaced by parts over `entries`.
Change replace_part(const View& view, std::size_t index, const std::vector<Chunk::Entry>& entries) {
  Change change{std::make_unique<View>(), nullptr};
  std::vector<View::Part>& parts = change.view->parts;
  parts.reserve(view.parts.size() + 1);
  const auto cut = view.parts.begin() + static_cast<std::ptrdiff_t>(index);
  parts.assign(view.parts.begin(), cut);
  if (entries.size() > Chunk::kCapacity) {
    const Chunk::Entry* const middle = entries.data() + entries.size() / 2;
    parts.push_back(make_part(entries.data(), middle));
    parts.push_back(make_part(middle, entries.data() + entries.size()));
  } else if (!entries.empty()) {
    parts.push_back(make_part(entries.data(), entries.data() + entries.size()));
  }
  if (cut != view.parts.end()) {
    change.dropped.reset(cut->chunk);
    parts.insert(parts.end(), cut + 1, view.parts.end());
  }
  return change;
}

std::vector<Chunk::Entry> entries_of(const View& view, std::size_t index) {
  if (index >= view.parts.size()) return {};
  const Chunk& chunk = *view.parts[index].chunk;
  return {chunk.entries.data(), chunk.entries.data() + chunk.count};
}

}  // namespace

bool View::overlaps(std::uint64_t base, std::uint64_t size_bytes) const {
  if (parts.empty()) return false;
  // The last region that begins inside or below the range is the only one that can meet it: regions
  // do not overlap each other.
  const Chunk::Entry* const entry =
      parts[part_for(base + size_bytes - 1)].chunk->at_or_below(base + size_bytes - 1);
  return entry != nullptr && entry->base + entry->size_bytes > base;
}

Change with_region(const View& view, Region& region) {
  const std::size_t index = view.part_for(region.base);
  std::vector<Chunk::Entry> entries = entries_of(view, index);
  const auto place = std::upper_bound(
      entries.begin(), entries.end(), region.base,
      [](std::uint64_t value, const Chunk::Entry& entry) { return value < entry.base; });
  entries.insert(place, {region.base, region.size_bytes, &region});
  return replace_part(view, index, entries);
}

Change without_region(const View& view, const Region& region) {
  const std::size_t index = view.part_for(region.base);
  std::vector<Chunk::Entry> entries = entries_of(view, index);
  std::erase_if(entries, [&](const Chunk::Entry& entry) { return entry.region == &region; });
  return replace_part(view, index, entries);
}

}  // namespace tandem::memory::detail
