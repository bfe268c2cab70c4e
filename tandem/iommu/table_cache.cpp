// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/table_cache.hpp"

namespace tandem::iommu::detail {

void TableCache::fill(IotlbContext context, Iova at, const CachedTable& table,
                      const FirstStage& stage, const Generations::Stamp& stamp) noexcept {
  const std::uint64_t region = at.value >> kLog2Region;
  Entry::Words words;
  words[kContext] = context.word;
  words[kRegion] = region;
  words[kTable] = table.table.page.value | TableWord::Global::make(table.table.global) |
                  TableWord::Sum::make(stage.sum) |
                  TableWord::BigEndian::make(stage.scheme.big_endian) |
                  TableWord::Sv32::make(stage.scheme.is_sv32()) |
                  TableWord::DefaultProcess::make(table.default_process) |
                  TableWord::Levels::make(stage.scheme.levels);
  words[kSpace] = SpaceWord::Pscid::make(stage.pscid) |
                  SpaceWord::HasGscid::make(table.gscid.has_value()) |
                  SpaceWord::Gscid::make(table.gscid.value_or(0));
  words[kWhich] = stamp.which;
  words[kSum] = stamp.sum;
  entry_of(context, region).write(words);
}

}  // namespace tandem::iommu::detail
