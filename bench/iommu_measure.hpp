// SPDX-License-Identifier: Apache-2.0
/// How the iommu benchmarks take time.
#pragma once

#include <cstdint>

#include "bench/harness.hpp"
#include "tandem/base/check.hpp"
#include "tandem/iommu/iommu.hpp"

namespace tandem::bench {

/// Nanoseconds of each of `rounds` calls of `operation(index)`.
template <class Operation>
double ns_each(long rounds, Operation operation) {
  const auto start = cpu_ns();
  for (long i = 0; i < rounds; ++i) operation(static_cast<std::uint64_t>(i));
  return static_cast<double>(cpu_ns() - start) / static_cast<double>(rounds);
}

/// A translation that succeeds.
inline void translate(iommu::Port& port, const iommu::Requester& requester, iommu::Iova at) {
  const auto found = port.translate(requester, at, iommu::Access::kRead);
  TANDEM_CHECK(found.has_value());
  asm volatile("" : : "r"(found->address.value));
}

}  // namespace tandem::bench
