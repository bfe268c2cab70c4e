// SPDX-License-Identifier: Apache-2.0
/// Look-up of one mapping of a process through a descriptor of its maps file.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"

namespace tandem::uacce::detail {

/// The first address that no process maps and no page table here translates: 2^47, or 2^48 on
/// aarch64.
#if defined(__aarch64__)
inline constexpr unsigned kUserAddressBits = 48;
#else
inline constexpr unsigned kUserAddressBits = 47;
#endif
inline constexpr std::uint64_t kUserAddressEnd = std::uint64_t{1} << kUserAddressBits;

/// One mapping, [start, end), as it was when asked.
struct Vma {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;  ///< bytes into the file
  std::uint64_t inode = 0;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  bool readable = false;
  bool writable = false;
  bool executable = false;
  bool shared = false;

  bool anonymous() const { return inode == 0 && device_major == 0 && device_minor == 0; }
  friend bool operator==(const Vma&, const Vma&) = default;
};

/// Whether `vma` allows a read or a write.
bool permits(const Vma& vma, bool write);

/// Parses one line of a maps file.
/// Returns: false when it is none.
bool parse_maps_line(std::string_view line, Vma& vma);

/// Answers from a maps descriptor, which it borrows: by ioctl where the kernel has PROCMAP_QUERY
/// and TANDEM_DISABLE allows it, else by reading the file each time.
///
/// Thread safety: any thread. May block on the process's own mmap lock.
/// Errors:        ENOENT nothing there, ESRCH the address space is gone, others as the kernel says.
class VmaSource {
 public:
  explicit VmaSource(int maps_fd);
  Result<Vma> covering(std::uint64_t address) const;
  Result<Vma> covering_or_next(std::uint64_t address) const;

 private:
  Result<Vma> find(std::uint64_t address, bool or_next) const;
  Result<Vma> query(std::uint64_t address, bool or_next) const;
  Result<Vma> parse(std::uint64_t address, bool or_next) const;

  const int maps_fd_;
  mutable std::atomic<bool> has_query_;  // cleared by whoever learns that the kernel lacks it
  mutable Mutex parse_mutex_;            // one reader at a time keeps the file's own cursor in step
};

}  // namespace tandem::uacce::detail
