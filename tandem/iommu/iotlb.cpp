// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/iotlb.hpp"

namespace tandem::iommu::detail {

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
