// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "tandem/pcie/spec.hpp"

namespace tandem::pcie::detail {

/// The bytes of a configuration space, with what software may do to each bit: nothing, write it, or
/// clear it by writing 1 (RW1C). Little-endian. Not for use by several threads at once.
class RegisterFile {
 public:
  /// Defines the `size_bytes` at `offset`. Reset brings `value` back.
  void define(std::uint32_t offset, unsigned size_bytes, std::uint64_t value,
              std::uint64_t writable = 0, std::uint64_t cleared_by_1 = 0);
  void reset() { values_ = initial_; }

  /// `size_bytes` 1, 2 or 4, naturally aligned.
  std::uint32_t read(std::uint32_t offset, unsigned size_bytes) const;
  /// A write of software.
  void write(std::uint32_t offset, std::uint32_t value, unsigned size_bytes);
  /// A change by the function itself.
  void set(std::uint32_t offset, unsigned size_bytes, std::uint32_t value);

 private:
  using Bytes = std::array<std::uint8_t, config::kBytes>;
  Bytes values_{};
  Bytes initial_{};
  Bytes writable_{};
  Bytes cleared_by_1_{};
};

}  // namespace tandem::pcie::detail
