// SPDX-License-Identifier: Apache-2.0
/// Untranslated requests: those of a function without ATS, messages, and accesses of pages whose
/// translation says that it is for no other.
#include <algorithm>
#include <cstring>

#include "tandem/pcie/detail/step.hpp"

namespace tandem::pcie::detail {
namespace {

using memory::Fault;
using memory::PhysAddr;
using Reason = DmaFault::Reason;

/// An interrupt file in memory takes writes of one word, which are MSIs.
Step use_interrupt_file(EndpointState& /*state*/, const iommu::Mrif& /*mrif*/, Iova /*at*/,
                        std::span<std::byte> /*bytes*/) {
  Step step;
  step.fault = Fault::kRefused;
  return step;
}

Step use_interrupt_file(EndpointState& state, const iommu::Mrif& mrif, Iova at,
                        std::span<const std::byte> bytes) {
  Step step;
  step.fault = Fault::kRefused;
  std::uint32_t data = 0;
  if (bytes.size() != sizeof data) return step;
  step.has_window = thread_state.windows != 0;
  if (step.has_window) return step;  // before anything is marked: the notice may go to I/O
  std::memcpy(&data, bytes.data(), sizeof data);
  step.msi = {mrif, state.port->store_msi_in_section(mrif, at, data)};
  step.fault = Fault::kNone;
  step.length = sizeof data;
  step.in_flight = state.io_accesses.enter();
  return step;
}

template <class Byte>
Step use(EndpointState& state, const Requester& requester, Access access, Iova at,
         std::span<Byte> bytes) {
  const std::size_t limit = memory::piece_bytes(at.value, bytes.size());
  PhysAddr first;
  std::uint64_t length = 0;
  iommu::Leftover left;
  while (length < limit) {
    const Iova next = at.plus(length);
    iommu::Mrif mrif;
    const auto found = state.port->translate_in_section(requester, next, access, left, &mrif);
    if (!found) break;
    if (length == 0) {
      if (found->mrif) return use_interrupt_file(state, mrif, at, bytes);
      first = found->address;
    }
    if (found->mrif || found->address != first.plus(length)) break;
    const unsigned log2_size = std::min<unsigned>(found->log2_size, memory::kPhysAddrBits);
    const std::uint64_t size_bytes = std::uint64_t{1} << log2_size;
    length += size_bytes - (next.value & (size_bytes - 1));
  }
  Step step;
  if (length != 0) {
    step = use_run(state, first, bytes.first(std::min<std::uint64_t>(length, limit)));
  }
  step.left = left;
  step.refused_after = length;
  return step;
}

}  // namespace

Step use_untranslated(EndpointState& state, const Requester& requester, Access access, Iova at,
                      std::span<std::byte> bytes) {
  return use(state, requester, access, at, bytes);
}

Step use_untranslated(EndpointState& state, const Requester& requester, Access access, Iova at,
                      std::span<const std::byte> bytes) {
  return use(state, requester, access, at, bytes);
}

Reason reason_of(iommu::Cause cause) {
  switch (cause) {
    case iommu::Cause::kInstructionPageFault:
    case iommu::Cause::kReadPageFault:
    case iommu::Cause::kWritePageFault:
      return Reason::kNotPermitted;
    default:
      return Reason::kBlocked;
  }
}

}  // namespace tandem::pcie::detail
