// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/base/result.hpp"

namespace tandem::wd::detail {

/// One word that a forked child finds zeroed, however it was forked (MADV_WIPEONFORK).
///
/// The word holds the generation of the process: how many forks with use of this library lie
/// between it and the first. A context remembers the generation it was made in; a different word
/// means that this is another process. vfork() and CLONE_VM share the memory, so the word, so the
/// contexts.
///
/// Ordering: the word is stored with release once everything of a new generation is ready, and
///           loaded with acquire where a process looks for its state; the check on the send path is
///           relaxed, since it compares with what the same thread has seen already.
class GenerationWord {
 public:
  /// Maps the page. It is never unmapped: contexts point into it.
  /// Errors: the errno of mmap() or madvise() (kernels before 4.14 have no WIPEONFORK).
  static Result<GenerationWord*> create();

  std::uint32_t load_acquire() const noexcept { return word_.load(std::memory_order_acquire); }
  void publish(std::uint32_t generation) noexcept {
    word_.store(generation, std::memory_order_release);
  }
  /// For the fast path: one load.
  bool is(std::uint32_t generation) const noexcept {
    return word_.load(std::memory_order_relaxed) == generation;
  }

 private:
  std::atomic<std::uint32_t> word_;  // written once per process, read by every call
};

}  // namespace tandem::wd::detail
