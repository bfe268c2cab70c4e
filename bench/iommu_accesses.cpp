// SPDX-License-Identifier: Apache-2.0
#include "bench/iommu_accesses.hpp"

#include <cstring>
#include <optional>
#include <span>

#include "bench/harness.hpp"
#include "bench/iommu_hits.hpp"
#include "bench/iommu_measure.hpp"
#include "tandem/base/check.hpp"

namespace tandem::bench {

Walks::Walks(bool nested)
    : nested_(nested),
      board_(nested),
      port_(board_.iommu().attach(IommuBoard::kDevice, device_).value()) {
  const Tables tables = board_.make_tables();
  for (std::uint64_t i = 0; i < kPages; ++i) {
    board_.map(tables, page(i).value, board_.allocate(iommu::kPageBytes));
  }
  board_.set_process(Hits::kPasid, tables);
}

double Walks::ns(long rounds) {
  const iommu::Requester requester{Hits::kPasid, false};
  const auto once = [&](std::uint64_t i) { translate(*port_, requester, page(i)); };
  ns_each(100, once);
  const auto before = board_.iommu().stats().walks;
  const double result = ns_each(rounds, once);
  TANDEM_CHECK(board_.iommu().stats().walks - before == static_cast<std::uint64_t>(rounds));
  return result;
}

double Walks::ns_of_first(long rounds) {
  const auto gscid = nested_ ? std::optional(IommuBoard::kGscid) : std::nullopt;
  return ns_after(rounds, iommu::iotinval_vma(std::nullopt, Hits::kPasid.value, gscid));
}

double Walks::ns_cold(long rounds) {
  return ns_after(rounds, iommu::iodir_inval_ddt(IommuBoard::kDevice.value));
}

double Walks::ns_after(long rounds, const iommu::Command& command) {
  const iommu::Requester requester{Hits::kPasid, false};
  const double alone = ns_each(rounds, [&](std::uint64_t) { board_.run({command}); });
  const double both = ns_each(rounds, [&](std::uint64_t i) {
    board_.run({command});
    translate(*port_, requester, page(i));
  });
  return both - alone;
}

Dma::Dma() {
  const Tables tables = board_.make_tables();
  const std::uint64_t data = board_.allocate(iommu::kPageBytes);
  board_.map(tables, Hits::kFirstPage, data);
  board_.set_process(Hits::kPasid, tables);
  pcie::Endpoint::Options options;
  options.pri = false;
  endpoint_ = pcie::Endpoint::create(board_.iommu(), IommuBoard::kDevice, options).value();
  host_ = board_.memory().host_pointer(memory::PhysAddr{data}, iommu::kPageBytes);
  std::memset(host_, 1, iommu::kPageBytes);
}

double Dma::ns(long rounds, std::size_t bytes) {
  const pcie::AddressSpace space = endpoint_->space(Hits::kPasid);
  return ns_each(rounds, [&](std::uint64_t) {
    TANDEM_CHECK(space.read(Hits::page(0), std::span(buffer_).first(bytes)).ok());
    asm volatile("" : : : "memory");
  });
}

double Dma::memcpy_ns(long rounds, std::size_t bytes) {
  return ns_each(rounds, [&](std::uint64_t) {
    std::memcpy(buffer_.data(), host_, bytes);
    asm volatile("" : : : "memory");
  });
}

}  // namespace tandem::bench
