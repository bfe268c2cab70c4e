// SPDX-License-Identifier: Apache-2.0
/// Pages of physical memory for directories, page tables and queues.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::uacce::detail {

/// How physical space is divided: tables, then reserved memory, and the upper half for apertures.
inline constexpr memory::PhysAddr kTableBase{std::uint64_t{1} << 40};
inline constexpr memory::PhysAddr kReservedBase{std::uint64_t{1} << 48};
inline constexpr memory::PhysAddr kReservedEnd{std::uint64_t{1} << 54};
inline constexpr memory::PhysAddr kApertureBase{std::uint64_t{1} << 55};
inline constexpr memory::PhysAddr kApertureEnd{std::uint64_t{1} << 56};

/// How many pages of tables somebody may have, over several page tables. Thread safety: any thread.
class TableQuota {
 public:
  explicit TableQuota(std::uint64_t most_pages) : most_pages_(most_pages) {}
  /// Takes a page. Returns: whether there was one left.
  bool take() {
    if (pages_.fetch_add(1, std::memory_order_relaxed) < most_pages_) return true;
    give_back(1);
    return false;
  }
  void give_back(std::uint64_t pages) { pages_.fetch_sub(pages, std::memory_order_relaxed); }
  std::uint64_t pages() const { return pages_.load(std::memory_order_relaxed); }

 private:
  const std::uint64_t most_pages_;
  std::atomic<std::uint64_t> pages_{0};
};

/// Hands out zeroed 4 KiB pages of host RAM; grows by chunks that cost address space only.
///
/// Thread safety: any thread.
class TableMemory {
 public:
  explicit TableMemory(memory::Memory& memory) : memory_(memory) {}
  ~TableMemory();
  TableMemory(const TableMemory&) = delete;
  TableMemory& operator=(const TableMemory&) = delete;

  /// Errors: ENOMEM, ENOSPC.
  Result<memory::PhysAddr> allocate();
  /// Takes back a page that nothing walks any more: the caller's IOFENCE.C is complete.
  void free(memory::PhysAddr page);

  std::uint64_t pages_in_use() const;
  std::uint64_t pages_freed() const;  ///< since creation

 private:
  static constexpr std::uint64_t kChunkBytes = std::uint64_t{16} << 20;
  static constexpr std::size_t kChunksMax = 4096;  // 64 GiB

  struct Chunk {
    Mapping mapping;
    memory::RegionId region;
  };

  memory::Memory& memory_;
  mutable Mutex mutex_;
  std::vector<Chunk> chunks_ TANDEM_GUARDED_BY(mutex_);
  std::uint64_t fresh_bytes_ TANDEM_GUARDED_BY(mutex_) = 0;  // handed out at least once, from base
  std::vector<memory::PhysAddr> free_ TANDEM_GUARDED_BY(mutex_);
  std::uint64_t freed_ TANDEM_GUARDED_BY(mutex_) = 0;
};

}  // namespace tandem::uacce::detail
