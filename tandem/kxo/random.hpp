// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace tandem::kxo {

/// Names a game among all that are played under a seed. Who plays it, on which thread or machine,
/// does not matter: its random numbers follow from its key.
struct GameKey {
  std::uint64_t seed = 0;
  std::uint64_t game = 0;

  friend constexpr bool operator==(const GameKey&, const GameKey&) = default;
};

/// Random numbers: xoshiro256++, whose state SplitMix64 makes of a game's key and a stream within
/// the game. Two streams share a part only with probability about 2^-150.
///
/// Source: D. Blackman, S. Vigna, "Scrambled Linear Pseudorandom Number Generators", 2021;
///         G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
/// Thread safety: one thread at a time.
class Random {
 public:
  using result_type = std::uint64_t;  // a UniformRandomBitGenerator

  explicit constexpr Random(GameKey key, std::uint64_t stream = 0) noexcept {
    std::uint64_t at = mixed(mixed(mixed(key.seed) + key.game) + stream);
    for (std::uint64_t& word : state_) word = mixed(at += kGamma);
  }

  constexpr std::uint64_t operator()() noexcept {
    const std::uint64_t result = std::rotl(state_[0] + state_[3], 23) + state_[0];
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }
  /// Below `bound`, which is not 0; each number has its probability up to bound / 2^64.
  constexpr std::uint64_t below(std::uint64_t bound) noexcept {
    return static_cast<std::uint64_t>((static_cast<Wide>((*this)()) * bound) >> 64);
  }
  /// In [0, 1).
  constexpr double unit() noexcept { return static_cast<double>((*this)() >> 11) * 0x1p-53; }

  static constexpr std::uint64_t min() noexcept { return 0; }
  static constexpr std::uint64_t max() noexcept {
    return std::numeric_limits<std::uint64_t>::max();
  }

 private:
  __extension__ using Wide = unsigned __int128;
  static constexpr std::uint64_t kGamma = 0x9e3779b97f4a7c15;

  /// The finalizer of SplitMix64, of `word` one step on.
  static constexpr std::uint64_t mixed(std::uint64_t word) noexcept {
    word += kGamma;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
  }

  std::uint64_t state_[4];
};

}  // namespace tandem::kxo
