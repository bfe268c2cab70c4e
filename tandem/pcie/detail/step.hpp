// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "tandem/memory/transfer.hpp"
#include "tandem/pcie/detail/endpoint_state.hpp"

namespace tandem::pcie::detail {

/// An MSI that was for an interrupt file in memory, and what came of it.
struct StoredMsi {
  iommu::Mrif file;
  Result<bool, iommu::Cause> stored;
};

/// What one reader section achieved: bytes copied, or a pinned I/O region to access after it, or
/// the reason why neither.
struct Step {
  std::size_t length = 0;  // copied, or behind `io`
  memory::IoPin io;
  std::optional<StoredMsi> msi;                // to be finished after it
  InFlight::Guard in_flight;                   // where there is `io` or `msi`
  memory::Fault fault = memory::Fault::kNone;  // of the memory at the very beginning
  bool missed = false;                         // no translation at the very beginning
  bool ended = false;                          // the life of the operation
  bool has_window = false;                     // the thread, so no I/O region may be accessed
  iommu::Leftover left;                        // what the IOMMU has to do after it
  std::size_t refused_after = 0;               // bytes before those of left.refusal
};

/// Copies or pins what is behind the run of physical addresses at the beginning of `bytes`. Inside
/// a section.
template <class Byte>
Step use_run(EndpointState& state, memory::PhysAddr at, std::span<Byte> bytes) {
  Step step;
  memory::Target target = state.memory().resolve(at, bytes.size(), std::is_const_v<Byte>);
  step.fault = target.fault;
  step.length = target.length;
  if (target.host != nullptr) {
    step.length = memory::piece_bytes(at.value, target.length);
    memory::copy(target, bytes.first(step.length));
  }
  if (target.io) step.in_flight = state.io_accesses.enter();
  step.io = std::move(target.io);
  return step;
}

/// Translates the beginning of `bytes` by untranslated requests and copies or pins what is behind
/// it, in the caller's section: a fence of the IOMMU waits for the copy. It does not wait for the
/// access to an I/O region, which is made after the section. (untranslated.cpp)
Step use_untranslated(EndpointState& state, const Requester& requester, Access access, Iova at,
                      std::span<std::byte> bytes);
Step use_untranslated(EndpointState& state, const Requester& requester, Access access, Iova at,
                      std::span<const std::byte> bytes);

/// What a device is told of an untranslated request that was refused. (untranslated.cpp)
DmaFault::Reason reason_of(iommu::Cause cause);

}  // namespace tandem::pcie::detail
