// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/detail/view.hpp"

#include <iterator>

namespace tandem::memory::detail {
namespace {

using Entry = Chunk::Entry;

/// Adds a piece; one that goes on where the last one of the same region ends makes that longer.
void append(std::vector<Entry>& entries, const Entry& entry) {
  if (entry.size_bytes == 0) return;
  if (!entries.empty() && entries.back().region == entry.region &&
      entries.back().end() == entry.base) {
    entries.back().size_bytes += entry.size_bytes;
  } else {
    entries.push_back(entry);
  }
}

/// The part of `entry` that lies in [first, end).
Entry clipped(const Entry& entry, std::uint64_t first, std::uint64_t end) {
  const std::uint64_t from = std::clamp(entry.base, first, end);
  return {from, std::clamp(entry.end(), from, end) - from, entry.region};
}

void append_parts(std::vector<View::Part>& parts, const std::vector<Entry>& entries) {
  // Two halves rather than a full and a nearly empty one.
  const std::size_t pieces = (entries.size() + Chunk::kCapacity - 1) / Chunk::kCapacity;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t from = entries.size() * i / pieces;
    const std::size_t to = entries.size() * (i + 1) / pieces;
    auto chunk = std::make_unique<Chunk>();
    std::copy(entries.data() + from, entries.data() + to, chunk->entries.data());
    chunk->count = to - from;
    parts.push_back({entries[from].base, chunk.release()});
  }
}

}  // namespace

Decoded View::find_through(const Entry& alias, std::uint64_t address) const {
  const Entry* entry = &alias;
  bool writable = true;
  std::uint64_t before = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t length = before;
  for (unsigned aliases = 0; aliases <= kMaxAliases && entry != nullptr; ++aliases) {
    Region& region = *entry->region;
    const std::uint64_t offset = address - region.base;
    before = std::min(before, address - entry->base);
    length = std::min(length, entry->end() - address);
    writable = writable && region.writable;
    if (!region.is_alias) return {&region, offset, before, length, writable};
    if (region.target != nullptr) {
      return {region.target, region.target_offset + offset, before, length,
              writable && region.target->writable};
    }
    address = region.target_offset + offset;
    entry = entry_at(address);
  }
  return {};
}

Layers::Layer::const_iterator Layers::first_meeting(const Layer& layer, std::uint64_t first) {
  auto at = layer.upper_bound(first);
  if (at != layer.begin()) {
    const auto below = std::prev(at);
    if (below->first + below->second->size_bytes > first) at = below;
  }
  return at;
}

bool Layers::overlaps(int priority, std::uint64_t base, std::uint64_t size_bytes) const {
  const auto layer = layers_.find(priority);
  if (layer == layers_.end()) return false;
  const auto region = first_meeting(layer->second, base);
  return region != layer->second.end() && region->first < base + size_bytes;
}

void Layers::erase(const Region& region) {
  const auto layer = layers_.find(region.priority);
  layer->second.erase(region.base);
  if (layer->second.empty()) layers_.erase(layer);
}

void Layers::fill(std::vector<Entry>& entries, ByPriority::const_iterator layer,
                  ByPriority::const_iterator last, std::uint64_t first, std::uint64_t end) {
  if (layer == last || first >= end) return;
  const auto lower = std::next(layer);
  for (auto at = first_meeting(layer->second, first); at != layer->second.end() && at->first < end;
       ++at) {
    const Entry piece = clipped({at->first, at->second->size_bytes, at->second}, first, end);
    fill(entries, lower, last, first, piece.base);
    append(entries, piece);
    first = piece.end();
  }
  fill(entries, lower, last, first, end);
}

std::vector<Entry> Layers::flatten(std::uint64_t first, std::uint64_t end) const {
  std::vector<Entry> entries;
  fill(entries, layers_.begin(), layers_.end(), first, end);
  return entries;
}

Change refreshed(const View& view, const Layers& layers, std::uint64_t first, std::uint64_t end) {
  Change change{std::make_unique<View>(), {}};
  // Also the parts with the neighbours, which a piece may now join.
  const std::size_t from = view.part_for(first == 0 ? 0 : first - 1);
  const std::size_t to = view.parts.empty() ? 0 : view.part_for(end) + 1;
  const auto for_old = [&](auto use) {
    for (std::size_t part = from; part < to; ++part) {
      const Chunk& chunk = *view.parts[part].chunk;
      std::for_each_n(chunk.entries.begin(), chunk.count, use);
    }
  };
  std::vector<Entry> entries;
  for_old([&](const Entry& old) { append(entries, clipped(old, 0, first)); });
  for (const Entry& fresh : layers.flatten(first, end)) append(entries, fresh);
  for_old([&](const Entry& old) {
    append(entries, clipped(old, end, std::numeric_limits<std::uint64_t>::max()));
  });

  std::vector<View::Part>& parts = change.view->parts;
  parts.reserve(view.parts.size() + 2);
  const auto at = [&](std::size_t part) {
    return view.parts.begin() + static_cast<std::ptrdiff_t>(part);
  };
  parts.assign(at(0), at(from));
  append_parts(parts, entries);
  parts.insert(parts.end(), at(to), view.parts.end());
  for (std::size_t part = from; part < to; ++part) {
    change.dropped.emplace_back(view.parts[part].chunk);
  }
  return change;
}

}  // namespace tandem::memory::detail
