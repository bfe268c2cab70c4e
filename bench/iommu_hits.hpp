// SPDX-License-Identifier: Apache-2.0
/// Translations that hit, by one thread and by two, of few address spaces and of many.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/iommu_board.hpp"
#include "bench/iommu_peer.hpp"

namespace tandem::bench {

/// A board, and PASIDs from kPasid on that share tables of kPages pages.
class Hits {
 public:
  static constexpr iommu::Pasid kPasid{5};
  static constexpr std::uint64_t kFirstPage = 0x7f00'1234'5000;
  static constexpr std::uint64_t kPages = 16;
  static constexpr iommu::Iova page(std::uint64_t index) {
    return {kFirstPage + index % kPages * iommu::kPageBytes};
  }

  explicit Hits(std::uint32_t pasids = 2);
  IommuBoard& board() { return board_; }

  /// Nanoseconds of a translation of the pages in turn.
  double ns(long rounds, iommu::Pasid pasid = kPasid);
  /// Of the first page of `count` PASIDs in turn, which were all translated before.
  double ns_over_pasids(long rounds, std::uint32_t count);

 private:
  IommuBoard board_;
  SilentDevice device_;
  std::unique_ptr<iommu::Port> port_;
};

/// `count` devices, each with an address space of its own.
class Devices {
 public:
  explicit Devices(std::uint32_t count);
  /// Nanoseconds of a translation for the devices in turn, all done before.
  double ns(long rounds);

 private:
  IommuBoard board_;
  SilentDevice device_;
  std::vector<std::unique_ptr<iommu::Port>> ports_;
};

/// The peer, filled with the translations of Hits.
std::shared_ptr<MutexIotlb> make_peer();
double peer_hit_ns(MutexIotlb& peer, long rounds);

/// Translations a second, in all, of two threads with CPUs of their own: on one IOMMU, with one
/// PASID or one each; or each on its own IOMMU. By the clock of each thread: what other processes
/// take does not count. The peer, whose threads sleep, by the wall clock.
double rate_of_two(Hits& of_one, iommu::Pasid pasid_of_one, Hits& of_other,
                   iommu::Pasid pasid_of_other, long rounds);
double rate_of_one(Hits& hits, long rounds);
double peer_rate_of_two(MutexIotlb& peer, long rounds);

/// Nanoseconds of a hit; if `invalidate`, while another thread, on another CPU, invalidates a page
/// a thousand times a second, every sixteenth time one of those that are hit, and fences.
double ns_while_invalidating(Hits& hits, long rounds, bool invalidate);

}  // namespace tandem::bench
