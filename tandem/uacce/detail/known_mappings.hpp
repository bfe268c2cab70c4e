// SPDX-License-Identifier: Apache-2.0
/// What the last page requests of a process learned about its mappings.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "tandem/uacce/detail/vma.hpp"

namespace tandem::uacce::detail {

/// The mappings that were asked for last, so that a page request for another page of one need not
/// ask the kernel.
///
/// They may be out of date: the process changes its mappings as it likes. So may be every entry of
/// a page table that leads to ordinary memory, and for the same reason that is no harm: each access
/// asks the kernel for itself (ClientMemory). When one is refused all is forgotten, and the page
/// request that follows is answered by what is mapped then. What would refuse is never remembered.
///
/// Thread safety: the caller's lock.
class KnownMappings {
 public:
  /// A mapping that holds `address` and allows the access; nullptr when none is known.
  /// `refusals`: ClientMemory::refusals() of now.
  const Vma* find(std::uint64_t address, bool read, bool write, std::uint64_t refusals) {
    if (refusals != refusals_) {
      known_ = {};
      refusals_ = refusals;
    }
    for (const Vma& vma : known_) {
      if (address < vma.start || address >= vma.end) continue;
      const bool allowed = (!read || permits(vma, false)) && (!write || permits(vma, true));
      return allowed ? &vma : nullptr;
    }
    return nullptr;
  }
  /// Remembers what was asked for when find() was called with `refusals`.
  void remember(const Vma& vma, std::uint64_t refusals) {
    if (refusals != refusals_) return;  // somebody was refused meanwhile
    for (Vma& known : known_) {
      if (known.start < vma.end && vma.start < known.end) known = {};
    }
    known_[next_++ % kCount] = vma;
  }

 private:
  static constexpr std::size_t kCount = 4;  // what an operation reads, writes, and two more

  std::array<Vma, kCount> known_{};
  std::size_t next_ = 0;
  std::uint64_t refusals_ = 0;
};

}  // namespace tandem::uacce::detail
