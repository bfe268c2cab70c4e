// SPDX-License-Identifier: Apache-2.0
/// Translations that walk, and whole accesses of an endpoint.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "bench/iommu_board.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::bench {

/// Translations that miss the IOTLB each time. (What they read of the tables the CPU has at hand.)
class Walks {
 public:
  /// Sv48, or Sv48 on top of Sv48x4.
  explicit Walks(bool nested);
  /// Contexts and the last tables are cached: each reads its leaf, and what maps that page.
  double ns(long rounds);
  /// Contexts are cached, tables are not: what the first in two megabytes costs.
  double ns_of_first(long rounds);
  /// Nothing is: contexts are read, too.
  double ns_cold(long rounds);

 private:
  /// Of a translation after `command`, without that.
  double ns_after(long rounds, const iommu::Command& command);

  /// Pages that lie where no cache of translations tells them apart by their low bits.
  static constexpr std::uint64_t kPages = 4;
  static constexpr iommu::Iova page(std::uint64_t i) { return {0x1234'5000 + (i % kPages << 36)}; }
  bool nested_;
  IommuBoard board_;
  SilentDevice device_;
  std::unique_ptr<iommu::Port> port_;
};

/// An endpoint that reads a page of a process, translation cached.
class Dma {
 public:
  Dma();
  double ns(long rounds, std::size_t bytes);
  /// The same bytes by memcpy.
  double memcpy_ns(long rounds, std::size_t bytes);

 private:
  IommuBoard board_;
  std::byte* host_ = nullptr;
  std::unique_ptr<pcie::Endpoint> endpoint_;
  alignas(64) std::array<std::byte, iommu::kPageBytes> buffer_{};
};

}  // namespace tandem::bench
