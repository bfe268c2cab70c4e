// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/page_table.hpp"

namespace tandem::iommu::detail {
namespace {

Cause of_access(Access access, Cause instruction, Cause read, Cause write) {
  switch (access) {
    case Access::kExecute:
      return instruction;
    case Access::kRead:
      return read;
    case Access::kWrite:
      break;
  }
  return write;
}

/// Replaces `pte` by `used`. Returns: what was there.
Result<std::uint64_t, memory::Fault> compare_exchange(TableReader& reader, const Scheme& scheme,
                                                      PhysAddr at, std::uint64_t pte,
                                                      std::uint64_t used) {
  const bool big_endian = scheme.big_endian;
  if (scheme.is_sv32()) {
    const auto found =
        reader.compare_exchange32(at, in_byte_order(static_cast<std::uint32_t>(pte), big_endian),
                                  in_byte_order(static_cast<std::uint32_t>(used), big_endian));
    if (!found) return Unexpected{found.error()};
    return std::uint64_t{in_byte_order(*found, big_endian)};
  }
  const auto found = reader.compare_exchange64(at, in_byte_order(pte, big_endian),
                                               in_byte_order(used, big_endian));
  if (!found) return Unexpected{found.error()};
  return in_byte_order(*found, big_endian);
}

}  // namespace

Result<Update, memory::Fault> update_entry(TableReader& reader, const Scheme& scheme, PhysAddr at,
                                           std::uint64_t pte, std::uint64_t used) {
  const auto found = compare_exchange(reader, scheme, at, pte, used);
  if (!found) return Unexpected{found.error()};
  if (*found == pte) return Update::kMade;
  if (reader.repeats == 0) return Update::kGivenUp;
  --reader.repeats;
  return Update::kChanged;
}

Cause page_fault(Access access) {
  return of_access(access, Cause::kInstructionPageFault, Cause::kReadPageFault,
                   Cause::kWritePageFault);
}

Cause guest_page_fault(Access access) {
  return of_access(access, Cause::kInstructionGuestPageFault, Cause::kReadGuestPageFault,
                   Cause::kWriteGuestPageFault);
}

Cause access_fault(Access access) {
  return of_access(access, Cause::kInstructionAccessFault, Cause::kReadAccessFault,
                   Cause::kWriteAccessFault);
}

}  // namespace tandem::iommu::detail
