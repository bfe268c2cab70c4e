// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/page_table.hpp"

namespace tandem::iommu::detail {
namespace {

/// Reserved in leaves and pointers.
bool has_reserved(const Config& config, std::uint64_t pte, unsigned level) {
  constexpr std::uint64_t kReservedPbmt = 3;
  if (Pte::R::get(pte) == 0 && Pte::W::get(pte) != 0) return true;
  if ((pte & Pte::Reserved::kMask) != 0) return true;
  if (Pte::Rsw60t59b::get(pte) != 0 && !config.has<Capabilities::Svrsw60t59b>()) return true;
  const std::uint64_t pbmt = Pte::Pbmt::get(pte);
  if (pbmt == kReservedPbmt || (pbmt != 0 && !config.has<Capabilities::Svpbmt>())) return true;
  return level != 0 && Pte::N::get(pte) != 0;
}

/// Reserved in pointers beside that.
constexpr std::uint64_t kReservedInPointers =
    Pte::N::kMask | Pte::Pbmt::kMask | Pte::D::kMask | Pte::A::kMask | Pte::U::kMask;

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

}  // namespace

EntryKind kind_of(const Config& config, std::uint64_t pte, unsigned level) {
  if (Pte::V::get(pte) == 0 || has_reserved(config, pte, level)) return EntryKind::kInvalid;
  if (Pte::R::get(pte) != 0 || Pte::X::get(pte) != 0) return EntryKind::kLeaf;
  return level == 0 || (pte & kReservedInPointers) != 0 ? EntryKind::kInvalid : EntryKind::kPointer;
}

bool is_aligned(std::uint64_t pte, unsigned level) {
  const auto ppn = Pte::Ppn::get(pte);
  if (Pte::N::get(pte) != 0) {
    return (ppn & ((1U << Pte::kNapotBits) - 1)) == Pte::kNapotPattern;
  }
  return (ppn & ((std::uint64_t{1} << (level * Pte::kIndexBits)) - 1)) == 0;
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
