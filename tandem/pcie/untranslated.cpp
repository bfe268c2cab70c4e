// SPDX-License-Identifier: Apache-2.0
/// Untranslated requests: those of a function without ATS, messages, and accesses of pages whose
/// translation says that it is for no other.
#include <algorithm>
#include <cstring>

#include "tandem/pcie/detail/step.hpp"

namespace tandem::pcie::detail {
namespace {

using memory::Fault;
using Reason = DmaFault::Reason;

/// An interrupt file in memory takes writes of one word, which are MSIs.
void use_interrupt_file(EndpointState& /*state*/, const iommu::Mrif& /*mrif*/, Iova /*at*/,
                        std::span<std::byte> /*bytes*/, Step& step) {
  step.fault = Fault::kRefused;
}

void use_interrupt_file(EndpointState& state, const iommu::Mrif& mrif, Iova at,
                        std::span<const std::byte> bytes, Step& step) {
  step.fault = Fault::kRefused;
  std::uint32_t data = 0;
  if (bytes.size() != sizeof data) return;
  step.has_window = thread_state.windows != 0;
  if (step.has_window) return;  // before anything is marked: the notice may go to I/O
  std::memcpy(&data, bytes.data(), sizeof data);
  step.in_flight = state.io_accesses.enter();
  step.hold = state.port->hold(step.left);
  step.msi = {mrif, state.port->store_msi_in_section(mrif, at, data)};
  step.fault = Fault::kNone;
  step.length = sizeof data;
}

template <class Byte>
Step use(EndpointState& state, const Requester& requester, Access access, Iova at,
         std::span<Byte> bytes) {
  const std::size_t limit = memory::piece_bytes(at.value, bytes.size());
  Step step;
  while (step.copied < limit && !step.io && step.fault == Fault::kNone) {
    const Iova next = at.plus(step.copied);
    iommu::Mrif mrif;
    const auto found = state.port->translate_in_section(requester, next, access, step.left, &mrif);
    if (!found) break;
    if (found->mrif) {
      use_interrupt_file(state, mrif, next, bytes.subspan(step.copied), step);
      break;
    }
    const unsigned log2_size = std::min<unsigned>(found->log2_size, memory::kPhysAddrBits);
    const std::uint64_t size_bytes = std::uint64_t{1} << log2_size;
    const std::uint64_t reach = size_bytes - (next.value & (size_bytes - 1));
    const std::size_t length = std::min<std::uint64_t>(reach, limit - step.copied);
    use_run(state, found->address, bytes.subspan(step.copied, length), step);
    if (step.is_waited_for()) step.hold = state.port->hold(step.left);
  }
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
