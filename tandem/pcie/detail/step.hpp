// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
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

/// What one reader section achieved: bytes copied and, behind them, a pinned I/O region to access
/// after it, or the reason why there is none.
struct Step {
  std::size_t copied = 0;
  memory::IoPin io;
  std::optional<StoredMsi> msi;                // to be finished after it
  std::size_t length = 0;                      // of `io` or `msi`
  InFlight::Guard in_flight;                   // where there is `io` or `msi`
  iommu::Hold hold;                            // of what is_waited_for(), and of `msi`
  IoSlot slot;                                 // of what is_waited_for()
  memory::Fault fault = memory::Fault::kNone;  // of the memory
  bool missed = false;                         // no translation at the very beginning
  bool ended = false;                          // the life of the operation
  bool has_window = false;                     // the thread, so no I/O region may be accessed
  iommu::Leftover left;                        // what the IOMMU has to do after it

  /// Whether invalidations wait for the access to `io`.
  bool is_waited_for() const { return io && !io.looks_after_accesses(); }
};

/// Copies what is behind the run of physical addresses at the beginning of `bytes`, and pins the
/// first I/O region there. Inside a section.
template <class Byte>
void use_run(EndpointState& state, memory::PhysAddr at, std::span<Byte> bytes, Step& step) {
  const std::size_t limit = memory::piece_bytes(at.value, bytes.size());
  for (std::size_t done = 0; done < limit;) {
    memory::Target target =
        state.memory().resolve(at.plus(done), bytes.size() - done, std::is_const_v<Byte>);
    step.fault = target.fault;
    if (target.io) {
      step.in_flight = state.io_accesses.enter();
      step.length = target.length;
      step.io = std::move(target.io);
    }
    if (target.host == nullptr) return;
    const std::size_t length = std::min(target.length, limit - done);
    memory::copy(target, bytes.subspan(done, length));
    step.copied += length;
    done += length;
  }
}

/// Translates the beginning of `bytes` by untranslated requests, a page at a time, and copies or
/// pins what is behind it, in the caller's section: a fence of the IOMMU waits for both. Asks for
/// no page before it is reached. (untranslated.cpp)
Step use_untranslated(EndpointState& state, const Requester& requester, Access access, Iova at,
                      std::span<std::byte> bytes);
Step use_untranslated(EndpointState& state, const Requester& requester, Access access, Iova at,
                      std::span<const std::byte> bytes);

/// What a device is told of an untranslated request that was refused. (untranslated.cpp)
DmaFault::Reason reason_of(iommu::Cause cause);

}  // namespace tandem::pcie::detail
