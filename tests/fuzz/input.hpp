// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace tandem::fuzz {

/// What a fuzzer chose, taken from its beginning; zeros once it is used up.
class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : left_(bytes) {}
  bool empty() const { return left_.empty(); }

  template <class Word = std::uint8_t>
  Word take() {
    static_assert(std::is_unsigned_v<Word>);
    Word word = 0;
    const std::size_t length = std::min(sizeof word, left_.size());
    std::memcpy(&word, left_.data(), length);
    left_ = left_.subspan(length);
    return word;
  }
  bool flag() { return (take() & 1) != 0; }
  /// Below `bound`, which is at most 256.
  unsigned below(unsigned bound) { return take() % bound; }
  /// A word in which few bits are set, or all but few, or any.
  std::uint64_t word() {
    switch (below(4)) {
      case 0:
        return take();
      case 1:
        return std::uint64_t{take<std::uint16_t>()} << below(64);
      case 2:
        return ~(std::uint64_t{take()} << below(64));
      default:
        return take<std::uint64_t>();
    }
  }

 private:
  std::span<const std::uint8_t> left_;
};

}  // namespace tandem::fuzz
