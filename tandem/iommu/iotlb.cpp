// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/iotlb.hpp"

namespace tandem::iommu::detail {

std::optional<Iotlb::Hit> Iotlb::lookup_in(std::uint32_t classes, IotlbContext context, Iova at,
                                           Attributes need,
                                           Generations::Stamp& stamp) const noexcept {
  const std::uint64_t from = spread(context);
  for (; classes != 0; classes &= classes - 1) {
    const auto page_class = static_cast<unsigned>(__builtin_ctz(classes));
    if (const auto hit = probe(context, from, page_class, at, need, stamp)) return hit;
  }
  return std::nullopt;
}

void Iotlb::fill(IotlbContext context, Iova at, const Translation& translation,
                 const Generations::Stamp& stamp) noexcept {
  const unsigned page_class = detail::page_class(translation.log2_size);
  const std::uint64_t page = at.value >> kPageClasses[page_class];
  Entry::Words words;
  words[kContext] = context.word;
  words[kPage] = page_key(page_class, page);
  words[kOffset] = translation.address.value - at.value;
  words[kAttributes] = attributes_of(translation);
  words[kWhich] = stamp.which;
  words[kSum] = stamp.sum;
  entries_[index(spread(context), page_class, page)].write(words);

  const std::uint32_t bit = std::uint32_t{1} << page_class;
  if ((classes_.load(std::memory_order_relaxed) & bit) == 0) {
    classes_.fetch_or(bit, std::memory_order_relaxed);
  }
}

}  // namespace tandem::iommu::detail
