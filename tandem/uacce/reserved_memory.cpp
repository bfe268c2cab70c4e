// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/reserved_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "tandem/uacce/detail/page_table.hpp"
#include "tandem/uacce/detail/table_memory.hpp"

namespace tandem::uacce::detail {

using memory::PhysAddr;

PhysicalSpace::PhysicalSpace() {
  free_[kReservedBase.value] = kReservedEnd.value;
  next_ = kReservedBase.value;
}

Result<PhysAddr> PhysicalSpace::allocate(std::uint64_t size_bytes, std::uint64_t alignment) {
  const MutexLock lock(mutex_);
  const auto fits = [&](std::uint64_t start, std::uint64_t end, std::uint64_t& at) {
    at = (start + alignment - 1) & ~(alignment - 1);
    return at >= start && at < end && end - at >= size_bytes;
  };
  // Two rounds: from where the last range ended, then from the beginning.
  for (const std::uint64_t from : {next_, kReservedBase.value}) {
    auto range = free_.upper_bound(from);
    if (range != free_.begin() && std::prev(range)->second > from) --range;
    for (; range != free_.end(); ++range) {
      std::uint64_t at = 0;
      if (!fits(std::max(range->first, from), range->second, at)) continue;
      const auto [start, end] = *range;
      free_.erase(range);
      if (start < at) free_[start] = at;
      if (at + size_bytes < end) free_[at + size_bytes] = end;
      next_ = at + size_bytes;
      return PhysAddr{at};
    }
  }
  return errno_error(ENOSPC);
}

void PhysicalSpace::free(PhysAddr base, std::uint64_t size_bytes) {
  const MutexLock lock(mutex_);
  std::uint64_t start = base.value;
  std::uint64_t end = start + size_bytes;
  const auto after = free_.find(end);
  if (after != free_.end()) {
    end = after->second;
    free_.erase(after);
  }
  auto before = free_.lower_bound(start);
  if (before != free_.begin() && std::prev(before)->second == start) {
    start = std::prev(before)->first;
  }
  free_[start] = end;
}

ReservedMemory::ReservedMemory(std::shared_ptr<PhysicalSpace> space, UniqueFd fd, Mapping mapping,
                               PhysAddr base, memory::RegionId region)
    : space_(std::move(space)),
      fd_(std::move(fd)),
      mapping_(std::move(mapping)),
      base_(base),
      region_(region) {}

ReservedMemory::~ReservedMemory() {
  TANDEM_CHECK(space_->memory().remove(region_).has_value());
  space_->free(base_, size());
}

Result<std::shared_ptr<ReservedMemory>> ReservedMemory::create(std::shared_ptr<PhysicalSpace> space,
                                                               std::uint64_t size_bytes) {
  if (size_bytes == 0 || size_bytes > kUserAddressEnd) return errno_error(EINVAL);
  const std::uint64_t size = round_up_to_page(size_bytes);
  auto fd = make_sealed_memfd("tandem-reserved", size);
  if (!fd) return Unexpected{fd.error()};
  auto mapping = Mapping::shared(fd->get(), size);
  if (!mapping) return Unexpected{mapping.error()};
  mapping->exclude_from_fork();
  // At a client's address of the same alignment the largest pages that fit can be used.
  const std::uint64_t alignment = size >= level_bytes(2) ? level_bytes(2) : level_bytes(1);
  const auto base = space->allocate(size, alignment);
  if (!base) return Unexpected{base.error()};
  const auto region = space->memory().add_host_ram(*base, mapping->bytes());
  if (!region) {
    space->free(*base, size);
    return Unexpected{region.error()};
  }
  return std::shared_ptr<ReservedMemory>(
      new ReservedMemory(std::move(space), std::move(*fd), std::move(*mapping), *base, *region));
}

}  // namespace tandem::uacce::detail
