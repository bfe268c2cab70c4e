// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/page_table.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>

#include "tandem/rcu/rcu.hpp"

namespace tandem::uacce::detail {

using iommu::kPageShift;
using iommu::Pte;
using memory::Memory;
using memory::PhysAddr;

namespace {

constexpr unsigned kTopLevel = iommu::first_stage_levels(kFirstStageMode) - 1;
constexpr std::uint64_t kEntries = std::uint64_t{1} << Pte::kIndexBits;

bool valid(std::uint64_t entry) { return Pte::V::get(entry) != 0; }
bool leaf(std::uint64_t entry) { return Pte::R::get(entry) != 0 || Pte::X::get(entry) != 0; }
PhysAddr target(std::uint64_t entry) { return {Pte::Ppn::get(entry) << kPageShift}; }

PhysAddr word(PhysAddr table, std::uint64_t index) {
  return table.plus(index * sizeof(std::uint64_t));
}

PhysAddr slot(PhysAddr table, std::uint64_t address, unsigned level) {
  return word(table, address / level_bytes(level) % kEntries);
}

/// A and D are set: nobody harvests them. W without R is reserved, so a writable page reads too.
std::uint64_t leaf_entry(PhysAddr to, PageRights rights) {
  return Pte::V::make(1) | Pte::R::make(1) | Pte::W::make(rights.write) | Pte::U::make(1) |
         Pte::A::make(1) | Pte::D::make(1) | Pte::Ppn::make(to.value >> kPageShift);
}

}  // namespace

void PageTable::Change::add(std::uint64_t address, std::uint64_t bytes) {
  first = std::min(first, address);
  last = std::max(last, address + bytes);
}

Result<PageTable> PageTable::create(memory::Memory& memory, TableMemory& tables,
                                    std::shared_ptr<TableQuota> quota) {
  const auto root = tables.allocate();
  if (!root) return Unexpected{root.error()};
  return PageTable(memory, tables, std::move(quota), *root);
}

std::uint64_t PageTable::load(Memory::Reader& words, PhysAddr at) {
  const auto entry = words.load64(at, std::memory_order_relaxed);
  TANDEM_CHECK(entry.has_value());
  return *entry;
}

void PageTable::store(Memory::Reader& words, PhysAddr at, std::uint64_t entry) {
  TANDEM_CHECK(words.store64(at, entry, std::memory_order_release).has_value());
}

std::uint64_t PageTable::load(PhysAddr at) const {
  Memory::Reader words(*memory_);
  return load(words, at);
}

void PageTable::store(PhysAddr at, std::uint64_t entry) {
  Memory::Reader words(*memory_);
  store(words, at, entry);
}

unsigned PageTable::level_without_table(std::uint64_t address, unsigned level) const {
  Memory::Reader words(*memory_);
  PhysAddr table = root_;
  for (unsigned at = kTopLevel;; --at) {
    const std::uint64_t entry = load(words, slot(table, address, at));
    if (!valid(entry)) return std::min(level, at);
    if (leaf(entry) || at == 0) return std::min(level, at);
    table = target(entry);
  }
}

Result<PhysAddr> PageTable::entry_for(std::uint64_t address, unsigned level, Change& change) {
  PhysAddr table = root_;
  unsigned at = kTopLevel;
  {
    // In one section, which ends before a table is made.
    Memory::Reader words(*memory_);
    for (; at > level; --at) {
      const std::uint64_t entry = load(words, slot(table, address, at));
      if (!valid(entry) || leaf(entry)) break;
      table = target(entry);
    }
  }
  for (; at > level; --at) {
    const PhysAddr where = slot(table, address, at);
    const std::uint64_t entry = load(where);
    if (table_pages_ >= kTablePagesMax || (quota_ != nullptr && !quota_->take())) {
      return errno_error(ENOSPC);
    }
    ++table_pages_;
    const auto page = tables_->allocate();
    if (!page) {
      uncharge(1);
      return Unexpected{page.error()};
    }
    if (valid(entry)) change.add(address & ~(level_bytes(at) - 1), level_bytes(at));
    store(where, Pte::make_pointer(page->value >> kPageShift));
    table = *page;
  }
  return slot(table, address, level);
}

Result<void> PageTable::map(std::uint64_t address, PhysAddr to, unsigned level, PageRights rights,
                            Change& change) {
  const auto at = entry_for(address, level, change);
  if (!at) return Unexpected{at.error()};
  Memory::Reader words(*memory_);
  const std::uint64_t before = load(words, *at);
  TANDEM_CHECK(level == 0 || !valid(before) || leaf(before));
  const std::uint64_t entry = leaf_entry(to, rights);
  if (before == entry) return {};
  if (valid(before)) change.add(address, level_bytes(level));
  store(words, *at, entry);
  return {};
}

Result<void> PageTable::map_pages(std::uint64_t first, std::uint64_t last, PhysAddr to_first,
                                  PageRights rights, Change& change) {
  TANDEM_CHECK(first < last && first / level_bytes(1) == (last - 1) / level_bytes(1));
  const auto at = entry_for(first, 0, change);
  if (!at) return Unexpected{at.error()};
  const std::size_t pages = (last - first) / iommu::kPageBytes;
  const std::scoped_lock section(rcu::rcu_default_domain());
  // Up to a whole table: where it is gets looked up once.
  std::byte* const host = memory_->host_pointer(*at, pages * sizeof(std::uint64_t));
  TANDEM_CHECK(host != nullptr);
  for (std::size_t i = 0; i < pages; ++i) {
    const std::atomic_ref word(reinterpret_cast<std::uint64_t*>(host)[i]);
    const std::uint64_t before = word.load(std::memory_order_relaxed);
    const std::uint64_t bytes = i * iommu::kPageBytes;
    const std::uint64_t entry = leaf_entry(to_first.plus(bytes), rights);
    if (before == entry) continue;
    if (valid(before)) change.add(first + bytes, iommu::kPageBytes);
    word.store(entry, std::memory_order_release);  // (A)
  }
  return {};
}

bool PageTable::is_empty(PhysAddr table) const {
  Memory::Reader words(*memory_);
  for (std::uint64_t i = 0; i < kEntries; ++i) {
    if (valid(load(words, word(table, i)))) return false;
  }
  return true;
}

bool PageTable::unmap_in(PhysAddr table, unsigned level, std::uint64_t table_start,
                         std::uint64_t first, std::uint64_t last, Change& change) {
  const std::uint64_t span = level_bytes(level);
  const auto index = [&](std::uint64_t address) {
    return address <= table_start ? 0 : std::min((address - table_start) / span, kEntries);
  };
  bool empty = true;
  for (std::uint64_t i = index(first); i < kEntries && table_start + i * span < last; ++i) {
    const PhysAddr at = word(table, i);
    const std::uint64_t entry = load(at);
    if (!valid(entry)) continue;
    if (level > 0 && !leaf(entry)) {
      if (!unmap_in(target(entry), level - 1, table_start + i * span, first, last, change)) {
        empty = false;
        continue;
      }
      change.unlinked.push_back(target(entry));
    }
    store(at, 0);
    change.add(table_start + i * span, span);
  }
  return empty && is_empty(table);
}

void PageTable::unmap(std::uint64_t first, std::uint64_t last, Change& change) {
  const std::size_t before = change.unlinked.size();
  (void)unmap_in(root_, kTopLevel, 0, first, last, change);
  uncharge(change.unlinked.size() - before);
}

void PageTable::unmap_all(Change& change) {
  const std::size_t before = change.unlinked.size();
  for (std::uint64_t i = 0; i < kEntries; ++i) {
    const PhysAddr at = word(root_, i);
    const std::uint64_t entry = load(at);
    if (!valid(entry)) continue;
    if (!leaf(entry)) list_below(target(entry), kTopLevel - 1, change.unlinked);
    store(at, 0);
    change.add(i * level_bytes(kTopLevel), level_bytes(kTopLevel));
  }
  uncharge(change.unlinked.size() - before);
}

void PageTable::list_below(PhysAddr table, unsigned level, std::vector<PhysAddr>& tables) const {
  tables.push_back(table);
  for (std::uint64_t i = 0; level > 0 && i < kEntries; ++i) {
    const std::uint64_t entry = load(word(table, i));
    if (valid(entry) && !leaf(entry)) list_below(target(entry), level - 1, tables);
  }
}

void PageTable::uncharge(std::uint64_t pages) {
  table_pages_ -= pages;
  if (quota_ != nullptr) quota_->give_back(pages);
}

void PageTable::free_below(PhysAddr table, unsigned level) {
  if (level > 0) {
    for (std::uint64_t i = 0; i < kEntries; ++i) {
      const std::uint64_t entry = load(word(table, i));
      if (valid(entry) && !leaf(entry)) free_below(target(entry), level - 1);
    }
  }
  tables_->free(table);
}

void PageTable::free_all() {
  free_below(root_, kTopLevel);
  uncharge(table_pages_ - 1);
  table_pages_ = 0;
}

std::vector<PageTable::Step> PageTable::walk(std::uint64_t address) const {
  std::vector<Step> steps;
  PhysAddr table = root_;
  for (unsigned level = kTopLevel;; --level) {
    const PhysAddr at = slot(table, address, level);
    const std::uint64_t entry = load(at);
    steps.push_back({level, at, entry});
    if (!valid(entry) || leaf(entry) || level == 0) return steps;
    table = target(entry);
  }
}

}  // namespace tandem::uacce::detail
