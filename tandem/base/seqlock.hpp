// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "tandem/base/cpu.hpp"
#include "tandem/base/planted_fault.hpp"

namespace tandem {

/// An entry of a cache: `N` words under a sequence lock. All zero is an entry that was never
/// written.
///
/// A writer takes the odd number by compare-exchange, or gives up; a reader that meets an odd or
/// changed number has read nothing. Neither waits. Thread safety: any thread.
template <std::size_t N>
class alignas(kCacheLine) Seqlock {
 public:
  using Words = std::array<std::uint64_t, N>;

  /// \name Reading word by word: begin(), then word() as often as need be; that counts if ended()
  ///       says so.
  /// Ordering: (A) the acquire loads of the words keep the second load of the sequence after them;
  ///           each pairs with the release store (B), so that a word of a newer writer brings that
  ///           writer's odd number with it.
  /// @{
  std::uint64_t begin(std::memory_order order = std::memory_order_acquire) noexcept {
    return ref(sequence_).load(order);
  }
  std::uint64_t word(std::size_t index) noexcept {
    return ref(words_.data()[index]).load(std::memory_order_acquire);  // (A)
  }
  bool ended(std::uint64_t begun) noexcept {
    return ref(sequence_).load(std::memory_order_relaxed) == (begun & ~std::uint64_t{1}) ||
           planted_fault("seqlock-torn-entry");
  }
  /// @}

  /// \name Writing word by word: set() between try_begin_write() and end_write(), which take what
  ///       begin() said.
  /// @{
  static constexpr bool is_being_written(std::uint64_t begun) noexcept { return (begun & 1) != 0; }
  /// Returns: false when another writer is, or was meanwhile, at work. Ordering: seq_cst.
  bool try_begin_write(std::uint64_t begun) noexcept {
    return !is_being_written(begun) &&
           ref(sequence_).compare_exchange_strong(begun, begun + 1, std::memory_order_seq_cst);
  }
  void set(std::size_t index, std::uint64_t value) noexcept {
    ref(words_.data()[index]).store(value, std::memory_order_release);  // (B)
  }
  void end_write(std::uint64_t begun) noexcept {
    ref(sequence_).store(begun + 2, std::memory_order_release);
  }
  /// @}

  /// Does nothing when another writer is at work.
  void write(const Words& words) noexcept {
    const std::uint64_t begun = begin(std::memory_order_relaxed);
    if (!try_begin_write(begun)) return;
    for (std::size_t i = 0; i < N; ++i) set(i, words[i]);
    end_write(begun);
  }

 private:
  static std::atomic_ref<std::uint64_t> ref(std::uint64_t& word) noexcept {
    return std::atomic_ref<std::uint64_t>(word);
  }

  std::uint64_t sequence_;  // odd: being written
  Words words_;
};

}  // namespace tandem
