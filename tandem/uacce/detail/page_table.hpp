// SPDX-License-Identifier: Apache-2.0
/// The first-stage page table of one address space: Sv48 (Sv57 on aarch64).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/memory/reader.hpp"
#include "tandem/uacce/detail/table_memory.hpp"
#include "tandem/uacce/detail/vma.hpp"

namespace tandem::uacce::detail {

inline constexpr iommu::FirstStageMode kFirstStageMode =
    kUserAddressBits > 47 ? iommu::FirstStageMode::kSv57 : iommu::FirstStageMode::kSv48;

/// Bytes that one entry of `level` (0: leaf table) spans.
constexpr std::uint64_t level_bytes(unsigned level) {
  return std::uint64_t{1} << (iommu::kPageShift + level * iommu::Pte::kIndexBits);
}
inline constexpr unsigned kLeafLevelMax = 2;  ///< 1 GiB

struct PageRights {
  bool read = false;
  bool write = false;
};

/// Thread safety: the caller serialises changes; the IOMMU walks meanwhile.
/// Ordering: (A) an entry is stored with release after what it points to; pairs with the acquire
///           loads of the IOMMU's walk.
class PageTable {
 public:
  /// Every table below the root counts against `quota`, if there is one.
  /// Errors: as TableMemory::allocate().
  static Result<PageTable> create(memory::Memory& memory, TableMemory& tables,
                                  std::shared_ptr<TableQuota> quota = nullptr);
  PageTable(PageTable&&) = default;
  PageTable& operator=(PageTable&&) = delete;

  memory::PhysAddr root() const { return root_; }

  /// The largest level ≤ `level` at which an entry for `address` would replace no table.
  unsigned level_without_table(std::uint64_t address, unsigned level) const;

  struct Change {
    /// [first, last) holds every address whose entry may be cached and was changed; invalidate it
    /// before relying on the change. Empty: nothing to do.
    std::uint64_t first = ~std::uint64_t{0}, last = 0;
    std::vector<memory::PhysAddr> unlinked;  ///< tables to free after the fence

    bool stale() const { return first < last; }
    void add(std::uint64_t address, std::uint64_t bytes);
  };

  /// Makes the page of `level` at `address` (aligned to it) translate to `to`. A superpage that
  /// covers it is dropped; the rest of it faults again.
  ///
  /// Errors: as TableMemory::allocate(), ENOSPC too when there are kTablePagesMax tables or the
  /// quota
  ///         is used up; nothing but empty tables was added.
  Result<void> map(std::uint64_t address, memory::PhysAddr to, unsigned level, PageRights rights,
                   Change& change);
  /// Fills the leaf entries of [first, last), inside one leaf table's 2 MiB, with pages from
  /// `to_first` on. Entries that say the same already stay.
  Result<void> map_pages(std::uint64_t first, std::uint64_t last, memory::PhysAddr to_first,
                         PageRights rights, Change& change);
  /// Removes what translates any page of [first, last), whole superpages that overlap it included.
  void unmap(std::uint64_t first, std::uint64_t last, Change& change);

  /// Removes everything; only the root stays.
  void unmap_all(Change& change);

  /// Frees every table. Nothing walks it any more.
  void free_all();
  std::uint64_t table_pages() const { return table_pages_; }

  struct Step {
    unsigned level = 0;
    memory::PhysAddr at;
    std::uint64_t entry = 0;
  };
  /// The entries that a walk for `address` reads.
  std::vector<Step> walk(std::uint64_t address) const;

  static constexpr std::uint64_t kTablePagesMax = 4096;  // 16 MiB of tables

 private:
  PageTable(memory::Memory& memory, TableMemory& tables, std::shared_ptr<TableQuota> quota,
            memory::PhysAddr root)
      : memory_(&memory), tables_(&tables), quota_(std::move(quota)), root_(root) {}

  static std::uint64_t load(memory::Memory::Reader& words, memory::PhysAddr at);
  static void store(memory::Memory::Reader& words, memory::PhysAddr at,
                    std::uint64_t entry);  // (A)
  std::uint64_t load(memory::PhysAddr at) const;
  void store(memory::PhysAddr at, std::uint64_t entry);
  /// Where the entry of `level` for `address` is; makes the tables above it.
  Result<memory::PhysAddr> entry_for(std::uint64_t address, unsigned level, Change& change);
  bool is_empty(memory::PhysAddr table) const;
  /// Returns: whether `table` is empty now.
  bool unmap_in(memory::PhysAddr table, unsigned level, std::uint64_t table_start,
                std::uint64_t first, std::uint64_t last, Change& change);
  void free_below(memory::PhysAddr table, unsigned level);
  /// Appends `table` and all tables below it to `tables`.
  void list_below(memory::PhysAddr table, unsigned level,
                  std::vector<memory::PhysAddr>& tables) const;
  void uncharge(std::uint64_t pages);

  memory::Memory* memory_;
  TableMemory* tables_;
  std::shared_ptr<TableQuota> quota_;
  memory::PhysAddr root_;
  std::uint64_t table_pages_ = 1;
};

}  // namespace tandem::uacce::detail
