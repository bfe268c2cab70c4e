// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/table_memory.hpp"

#include <atomic>
#include <cerrno>
#include <utility>

namespace tandem::uacce::detail {

using memory::PhysAddr;

TableMemory::~TableMemory() {
  const MutexLock lock(mutex_);
  for (const Chunk& chunk : chunks_) (void)memory_.remove(chunk.region);
}

Result<PhysAddr> TableMemory::allocate() {
  const MutexLock lock(mutex_);
  if (!free_.empty()) {
    const PhysAddr page = free_.back();
    free_.pop_back();
    return page;
  }
  if (fresh_bytes_ == chunks_.size() * kChunkBytes) {
    if (chunks_.size() == kChunksMax) return errno_error(ENOSPC);
    auto mapping = Mapping::anonymous(kChunkBytes, false);
    if (!mapping) return Unexpected{mapping.error()};
    const auto region = memory_.add_host_ram(kTableBase.plus(fresh_bytes_), mapping->bytes());
    if (!region) return Unexpected{region.error()};
    chunks_.push_back({std::move(*mapping), *region});
  }
  const PhysAddr page = kTableBase.plus(fresh_bytes_);
  fresh_bytes_ += kPageSize;
  return page;
}

void TableMemory::free(PhysAddr page) {
  const MutexLock lock(mutex_);
  const std::uint64_t offset = page.value - kTableBase.value;
  TANDEM_CHECK(page >= kTableBase && offset < fresh_bytes_ && offset % kPageSize == 0);
  // Atomic stores: a walk that the fence waited for read these words atomically.
  auto* words = reinterpret_cast<std::uint64_t*>(chunks_[offset / kChunkBytes].mapping.data() +
                                                 offset % kChunkBytes);
  for (std::size_t i = 0; i < kPageSize / sizeof *words; ++i) {
    std::atomic_ref<std::uint64_t>(words[i]).store(0, std::memory_order_relaxed);
  }
  free_.push_back(page);
  ++freed_;
}

std::uint64_t TableMemory::pages_in_use() const {
  const MutexLock lock(mutex_);
  return fresh_bytes_ / kPageSize - free_.size();
}

std::uint64_t TableMemory::pages_freed() const {
  const MutexLock lock(mutex_);
  return freed_;
}

}  // namespace tandem::uacce::detail
