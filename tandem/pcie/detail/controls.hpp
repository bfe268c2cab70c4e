// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tandem::pcie::detail {

/// Which messages a function may send, and in which life: one word, so that both are read at once.
///
/// A life ends with a reset, and whenever software takes a permission away. An operation belongs to
/// the life in which it began and ends with it.
class Controls {
 public:
  static constexpr unsigned kBusMaster = 1;  ///< any message at all
  static constexpr unsigned kPasid = 2;      ///< with a PASID prefix
  static constexpr unsigned kAts = 4;
  static constexpr unsigned kPageRequests = 8;
  static constexpr unsigned kExecute = 16;  ///< a PASID prefix may ask to execute
  static constexpr unsigned kPrivileged = 32;
  /// Those whose loss ends a life. Page requests under way are answered in any case.
  static constexpr unsigned kEndsLife = kBusMaster | kPasid | kAts | kExecute | kPrivileged;

  constexpr explicit Controls(std::uint64_t word = 0) : word_(word) {}
  constexpr Controls(std::uint64_t life, unsigned permissions)
      : word_(life << kLifeShift | permissions) {}

  constexpr std::uint64_t word() const { return word_; }
  constexpr std::uint64_t life() const { return word_ >> kLifeShift; }
  constexpr unsigned permissions() const { return word_ & kPermissions; }
  constexpr bool allows(unsigned permissions) const { return (word_ & permissions) == permissions; }

 private:
  static constexpr unsigned kLifeShift = 8;
  static constexpr std::uint64_t kPermissions = (1 << kLifeShift) - 1;
  std::uint64_t word_;
};

}  // namespace tandem::pcie::detail
