// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "tandem/base/check.hpp"
#include "tandem/base/mapping.hpp"

namespace tandem::iommu::detail {

/// `N` elements of zero bytes; what is never touched takes no memory.
///
/// Fork: a child has a copy of its own.
template <class T, std::size_t N>
class LazyArray {
  static_assert(std::is_trivial_v<T>, "an element lives where there is memory for it");

 public:
  LazyArray() : mapping_(map()) {}
  T& operator[](std::size_t index) const noexcept {
    return reinterpret_cast<T*>(mapping_.data())[index];
  }

 private:
  static Mapping map() {
    auto mapping = Mapping::anonymous(N * sizeof(T), /*reserve=*/false);
    TANDEM_CHECK(mapping.has_value());
    return std::move(*mapping);
  }
  Mapping mapping_;
};

/// By how much what is numbered in a row lies apart in a cache of kLog2CacheEntries: their golden
/// section, odd.
inline constexpr unsigned kLog2CacheEntries = 17;
inline constexpr std::uint64_t kGolden = 81'007;

}  // namespace tandem::iommu::detail
