// SPDX-License-Identifier: Apache-2.0
/// Memory that this process and a client both map, and its place in physical space.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/memory/memory.hpp"
#include "tandem/uacce/detail/host.hpp"

namespace tandem::uacce::detail {

/// Physical memory and who has which part of the range for reserved memory.
///
/// Thread safety: any thread.
class PhysicalSpace {
 public:
  PhysicalSpace();
  memory::Memory& memory() { return memory_; }

  /// A free range, aligned to `alignment` (a power of two of pages). Goes round the whole space
  /// before it hands out a range again. Errors: ENOSPC.
  Result<memory::PhysAddr> allocate(std::uint64_t size_bytes, std::uint64_t alignment);
  void free(memory::PhysAddr base, std::uint64_t size_bytes);

 private:
  memory::Memory memory_;
  Mutex mutex_;
  std::map<std::uint64_t, std::uint64_t> free_ TANDEM_GUARDED_BY(mutex_);  // start → end
  std::uint64_t next_ TANDEM_GUARDED_BY(mutex_) = 0;
};

/// A sealed memfd, mapped here and present as host RAM while the object lives.
class ReservedMemory {
 public:
  /// `size_bytes` is rounded up to pages. Errors: EINVAL for 0, ENOMEM, ENOSPC, EMFILE.
  static Result<std::shared_ptr<ReservedMemory>> create(std::shared_ptr<PhysicalSpace> space,
                                                        std::uint64_t size_bytes);
  ~ReservedMemory();
  ReservedMemory(const ReservedMemory&) = delete;
  ReservedMemory& operator=(const ReservedMemory&) = delete;

  const UniqueFd& descriptor() const { return fd_; }
  std::uint64_t size() const { return mapping_.size(); }
  memory::PhysAddr base() const { return base_; }

 private:
  ReservedMemory(std::shared_ptr<PhysicalSpace> space, UniqueFd fd, Mapping mapping,
                 memory::PhysAddr base, memory::RegionId region);

  const std::shared_ptr<PhysicalSpace> space_;
  const UniqueFd fd_;
  const Mapping mapping_;
  const memory::PhysAddr base_;
  const memory::RegionId region_;
};

}  // namespace tandem::uacce::detail
