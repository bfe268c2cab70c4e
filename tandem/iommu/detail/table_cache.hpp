// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "tandem/base/field.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/base/seqlock.hpp"
#include "tandem/iommu/detail/generations.hpp"
#include "tandem/iommu/detail/iotlb.hpp"
#include "tandem/iommu/detail/lazy_array.hpp"
#include "tandem/iommu/detail/walk.hpp"

namespace tandem::iommu::detail {

/// A last table, and what a walk from there on needs to know, beside its first stage, of all that
/// led to it.
struct CachedTable {
  LastTable table;
  std::optional<std::uint32_t> gscid;
  bool default_process = false;  ///< process 0 by tc.DPE
};

/// The cache of the first stage's last tables: where a request's directories, all levels but one
/// and, for the address of that table, the second stage lead to.
///
/// It holds what leads to a table (non-leaf entries); the leaf itself is read each time. An entry
/// is made of a translation that succeeded, for the naturally aligned 2 MiB around its address, and
/// is void as soon as a page of 2 MiB there would be: after every invalidation of some address in
/// it, also one that does not ask for non-leaf entries. So an entry that is not void was made for a
/// leaf that software has not invalidated since, and software that changes entries above that leaf
/// has to. Nothing but a translation comes of a cached table: whatever else its leaf may say, a
/// walk from the root decides.
///
/// Thread safety: any thread; lock-free, wait-free.
/// Spec: §3.8 "Caching in-memory data structures", §9.2 "Non-leaf PTE Invalidation Extension".
class TableCache {
 public:
  static constexpr unsigned kLog2Region = 21;
  static constexpr std::size_t kEntries = std::size_t{1} << 13;

  /// Whether the table for `at` is cached; `to`, `stage`, but for its root, and `snapshot` are of
  /// it then, and otherwise anything. (Field by field into where it is used: a copy of fields that
  /// were stored singly waits for them.)
  bool find(IotlbContext context, Iova at, CachedTable& to, FirstStage& stage,
            Generations::LeafSnapshot& snapshot) const noexcept;
  /// Remembers the table for `at`. `stamp`: that of a page of 2^kLog2Region bytes.
  void fill(IotlbContext context, Iova at, const CachedTable& table, const FirstStage& stage,
            const Generations::Stamp& stamp) noexcept;

 private:
  /// Words of an entry.
  enum Word : std::uint8_t {
    kContext,
    kRegion,
    kTable,  // TableWord
    kSpace,  // SpaceWord
    kWhich,  // Generations::Stamp
    kSum,
    kWords
  };
  using Entry = Seqlock<kWords>;

  /// A page's address, and below it what is known of it.
  struct TableWord {
    using Global = Field<0>;
    using Sum = Field<1>;
    using BigEndian = Field<2>;
    using Sv32 = Field<3>;
    using DefaultProcess = Field<4>;
    using Levels = Field<7, 5>;
    using Page = Field<55, 12>;
  };
  struct SpaceWord {
    using Pscid = Field<19, 0>;
    using Gscid = Field<35, 20>;
    using HasGscid = Field<36>;
  };

  /// Processes in a row have entries in a row.
  Entry& entry_of(IotlbContext context, std::uint64_t region) const noexcept {
    using Process = IotlbContext::Process;
    const std::uint64_t of_region = (region * 0x9e37'79b9'7f4a'7c15) >> 32;
    return entries_[(Process::get(context.word) + (context.word & ~Process::kMask) * kGolden +
                     of_region) %
                    kEntries];
  }

  LazyArray<Entry, kEntries> entries_;  // fillers write, lookups read
};
// The look-up, inline: every miss of the IOTLB makes it.

[[gnu::always_inline]] inline bool TableCache::find(
    IotlbContext context, Iova at, CachedTable& to, FirstStage& stage,
    Generations::LeafSnapshot& snapshot) const noexcept {
  const std::uint64_t region = at.value >> kLog2Region;
  Entry& entry = entry_of(context, region);
  const std::uint64_t begun = entry.begin();
  if (entry.word(kContext) != context.word || entry.word(kRegion) != region) return false;
  const std::uint64_t table = entry.word(kTable);
  const std::uint64_t space = entry.word(kSpace);
  const Generations::Stamp stamp{entry.word(kWhich), entry.word(kSum)};
  if (!entry.ended(begun)) return false;
  to.table.page.value = table & TableWord::Page::kMask;
  to.table.global = TableWord::Global::get(table) != 0;
  stage.scheme.levels = static_cast<std::uint8_t>(TableWord::Levels::get(table));
  stage.scheme.widened = 0;
  stage.scheme.index_bits = static_cast<std::uint8_t>(
      TableWord::Sv32::get(table) != 0 ? Pte::kSv32IndexBits : Pte::kIndexBits);
  stage.scheme.big_endian = TableWord::BigEndian::get(table) != 0;
  stage.pscid = static_cast<std::uint32_t>(SpaceWord::Pscid::get(space));
  stage.sum = TableWord::Sum::get(table) != 0;
  to.gscid.reset();
  if (SpaceWord::HasGscid::get(space) != 0) {
    to.gscid = static_cast<std::uint32_t>(SpaceWord::Gscid::get(space));
  }
  to.default_process = TableWord::DefaultProcess::get(table) != 0;
  return snapshot.take(stamp, {to.gscid, stage.pscid}, at) || planted_fault("iommu-stale-table");
}

}  // namespace tandem::iommu::detail
