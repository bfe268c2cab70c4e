// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "tandem/memory/memory.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::memory {

/// Naturally aligned atomic accesses to the words of host RAM, little-endian: one after another in
/// one reader section of rcu_default_domain(), which lasts as long as the Reader, and with the
/// region found last at hand. So a walk through tables costs one section, and a comparison for
/// each word.
///
/// Thread safety: one thread uses a Reader; keep it short, remove() waits for it.
/// Errors:        kMisaligned (also where there is no host RAM), kNoRegion, kReadOnly; kPoisoned,
///                except that a store takes the poison of a granule that it writes whole.
class Memory::Reader {
 public:
  explicit Reader(const Memory& memory) : section_(rcu::rcu_default_domain()), memory_(memory) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  Result<std::uint64_t, Fault> load64(PhysAddr at, std::memory_order order) {
    return load<std::uint64_t>(at, order);
  }
  Result<std::uint32_t, Fault> load32(PhysAddr at, std::memory_order order) {
    return load<std::uint32_t>(at, order);
  }
  Result<void, Fault> store64(PhysAddr at, std::uint64_t value, std::memory_order order) {
    return store(at, value, order);
  }
  Result<void, Fault> store32(PhysAddr at, std::uint32_t value, std::memory_order order) {
    return store(at, value, order);
  }
  /// Each replaces `expected` by `desired`; returns what was there (equal to `expected` on
  /// success).
  Result<std::uint64_t, Fault> compare_exchange64(PhysAddr at, std::uint64_t expected,
                                                  std::uint64_t desired) {
    return compare_exchange(at, expected, desired);
  }
  Result<std::uint32_t, Fault> compare_exchange32(PhysAddr at, std::uint32_t expected,
                                                  std::uint32_t desired) {
    return compare_exchange(at, expected, desired);
  }
  Result<void, Fault> set_bits64(PhysAddr at, std::uint64_t bits) {
    if (const Fault fault = locate<std::uint64_t>(at, true); fault != Fault::kNone) {
      return Unexpected{fault};
    }
    if (poison_ != nullptr && is_poisoned(at)) [[unlikely]]
      return Unexpected{Fault::kPoisoned};
    word<std::uint64_t>(at).fetch_or(bits, std::memory_order_acq_rel);
    return {};
  }

 private:
  template <class Word>
  Result<Word, Fault> load(PhysAddr at, std::memory_order order) {
    if (const Fault fault = locate<Word>(at, false); fault != Fault::kNone) {
      return Unexpected{fault};
    }
    if (poison_ != nullptr && is_poisoned(at)) [[unlikely]]
      return Unexpected{Fault::kPoisoned};
    return word<Word>(at).load(order);
  }
  template <class Word>
  Result<void, Fault> store(PhysAddr at, Word value, std::memory_order order) {
    if (const Fault fault = locate<Word>(at, true); fault != Fault::kNone) return Unexpected{fault};
    word<Word>(at).store(value, order);
    if (poison_ != nullptr) [[unlikely]]
      written(at, sizeof(Word));
    return {};
  }
  template <class Word>
  Result<Word, Fault> compare_exchange(PhysAddr at, Word expected, Word desired) {
    if (const Fault fault = locate<Word>(at, true); fault != Fault::kNone) return Unexpected{fault};
    if (poison_ != nullptr && is_poisoned(at)) [[unlikely]]
      return Unexpected{Fault::kPoisoned};
    word<Word>(at).compare_exchange_strong(expected, desired, std::memory_order_acq_rel);
    return expected;
  }

  /// Makes the region of the word at `at` the one at hand, unless there is a fault.
  template <class Word>
  Fault locate(PhysAddr at, bool write) {
    if (at.value % sizeof(Word) != 0) return Fault::kMisaligned;
    // Pieces of regions are page-aligned: they hold all of an aligned word or nothing of it.
    if (at.value - base_ >= size_bytes_) [[unlikely]] {
      if (const Fault fault = find(at); fault != Fault::kNone) return fault;
    }
    return write && !writable_ ? Fault::kReadOnly : Fault::kNone;
  }
  template <class Word>
  std::atomic_ref<Word> word(PhysAddr at) const {
    return std::atomic_ref<Word>(*reinterpret_cast<Word*>(host_ + (at.value - base_)));
  }
  Fault find(PhysAddr at);
  bool is_poisoned(PhysAddr at) const;
  void written(PhysAddr at, std::size_t size_bytes) const;

  const std::scoped_lock<rcu::rcu_domain> section_;
  const Memory& memory_;
  // What was found last: a piece of host RAM, from `offset_` on in its region.
  std::uint64_t base_ = 0;
  std::uint64_t size_bytes_ = 0;
  std::byte* host_ = nullptr;
  bool writable_ = false;
  std::uint64_t offset_ = 0;
  detail::PoisonMap* poison_ = nullptr;
};

}  // namespace tandem::memory
