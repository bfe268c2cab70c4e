// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

#include "tandem/memory/memory.hpp"

/// One piece of an access, in either direction: a constant span is written, another one filled.
namespace tandem::memory {

/// How many accesses to I/O regions the calling thread is in: one called from another's callback
/// counts as well.
unsigned io_nesting() noexcept;

/// Host RAM copied in one reader section, at most.
inline constexpr std::size_t kSectionBytes = std::size_t{64} << 10;

/// How many of `length` bytes at `address` one section copies. A piece that more follow ends
/// between granules of poison, so that a long write covers each as a whole.
inline std::size_t piece_bytes(std::uint64_t address, std::size_t length) {
  return length <= kSectionBytes ? length : kSectionBytes - address % kPoisonBytes;
}

inline void copy(const Target& target, std::span<std::byte> to) {
  std::memcpy(to.data(), target.host, to.size());
}
inline void copy(const Target& target, std::span<const std::byte> from) { target.store(from); }

inline Outcome access(const IoPin& pin, std::span<std::byte> to) { return pin.read(to); }
inline Outcome access(const IoPin& pin, std::span<const std::byte> from) { return pin.write(from); }

}  // namespace tandem::memory
