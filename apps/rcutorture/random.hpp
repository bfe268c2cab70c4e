// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "tandem/base/cpu.hpp"

namespace tandem::rcutorture {

/// One thread's choices (SplitMix64): the same for the same seed, role and number.
class Random {
 public:
  Random(std::uint64_t seed, std::string_view role, unsigned number) : state_(seed) {
    for (const char letter : role) state_ = state_ * 131 + static_cast<unsigned char>(letter);
    state_ = state_ * 131 + number;
  }
  std::uint64_t next() noexcept {
    std::uint64_t z = (state_ += 0x9E37'79B9'7F4A'7C15);
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EB;
    return z ^ (z >> 31);
  }
  /// One of [0, end).
  unsigned below(std::uint64_t end) noexcept { return static_cast<unsigned>(next() % end); }
  bool one_in(std::uint64_t chances) noexcept { return next() % chances == 0; }
  /// Mostly short, now and then long enough to be preempted.
  void delay() noexcept {
    const unsigned pauses = one_in(512) ? below(20'000) : below(40);
    for (unsigned i = 0; i < pauses; ++i) cpu_pause();
  }

 private:
  std::uint64_t state_;
};

}  // namespace tandem::rcutorture
