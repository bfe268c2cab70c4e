// SPDX-License-Identifier: Apache-2.0
/// Where the memory of rings comes from: this process's own, or files in a directory.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/trace/trace.hpp"

namespace tandem::trace::detail {

/// The directory for rings, and how many entries each has. Constant while rings are made.
class RingFiles {
 public:
  static constexpr std::size_t kDefaultEntries = 32768, kMostEntries = std::size_t{1} << 22;

  /// Returns: false for a path that is too long or not absolute.
  bool set_directory(const char* path) noexcept;
  /// Rounds up to a power of two, and into [64, kMostEntries]; 0 is the default.
  void set_entries(std::size_t entries) noexcept;

  bool in_memory() const { return path_[0] == '\0'; }
  std::uint32_t entries() const { return entries_; }
  /// "DIRECTORY/ring-XXXXXX", for mkostemp().
  const char* pattern() const { return path_; }

 private:
  char path_[PATH_MAX] = {};
  std::uint32_t entries_ = kDefaultEntries;
};

/// Memory with an empty ring: a new file of `files`, with its blocks reserved, or, where those are
/// in memory, of `entries_in_memory`. An empty Mapping if there is none to be had.
///
/// Thread safety: any thread. Takes no lock, so that a forked child may call it.
Mapping new_ring_memory(const RingFiles& files, std::size_t entries_in_memory) noexcept;

/// By time; those of the same time as they are.
void sort_by_time(std::vector<Record>& records);

}  // namespace tandem::trace::detail
