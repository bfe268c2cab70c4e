// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/walk.hpp"

#include "tandem/iommu/detail/capabilities.hpp"

namespace tandem::iommu::detail {
namespace {

/// Whether bits 63 down to the top virtual-address bit are all equal.
bool canonical(std::uint64_t address, unsigned levels) {
  const unsigned sign_bit = kPageShift + levels * Pte::kIndexBits - 1;
  const auto high = static_cast<std::int64_t>(address) >> sign_bit;
  return high == 0 || high == -1;
}

/// Whether the entry, at `level`, is valid and uses no reserved bit or encoding.
bool entry_ok(std::uint64_t pte, unsigned level) {
  static_assert(Capabilities::Svpbmt::get(kCapabilities) == 0);
  static_assert(Capabilities::Svrsw60t59b::get(kCapabilities) == 0);
  if (Pte::V::get(pte) == 0) return false;
  if (Pte::R::get(pte) == 0 && Pte::W::get(pte) != 0) return false;
  if ((pte & (Pte::Reserved::kMask | Pte::Pbmt::kMask)) != 0) return false;
  return level == 0 || Pte::N::get(pte) == 0;
}

bool is_leaf(std::uint64_t pte) { return Pte::R::get(pte) != 0 || Pte::X::get(pte) != 0; }

/// Whether a pointer entry leaves the bits clear that are reserved in pointers.
bool pointer_ok(std::uint64_t pte) {
  return (pte & (Pte::N::kMask | Pte::D::kMask | Pte::A::kMask | Pte::U::kMask)) == 0;
}

/// Whether the page may be used at all with the request's privilege.
bool privilege_ok(std::uint64_t pte, const Walk& walk) {
  if (!walk.supervisor) return Pte::U::get(pte) != 0;
  if (Pte::U::get(pte) == 0) return true;
  return walk.sum && walk.access != Access::kExecute;
}

bool access_ok(std::uint64_t pte, Access access) {
  switch (access) {
    case Access::kRead:
      return Pte::R::get(pte) != 0;
    case Access::kWrite:
      return Pte::W::get(pte) != 0;
    case Access::kExecute:
      return Pte::X::get(pte) != 0;
  }
  return false;
}

/// Whether the page number is aligned to the size that the level (or N) gives.
bool aligned(std::uint64_t pte, unsigned level) {
  const auto ppn = Pte::Ppn::get(pte);
  if (Pte::N::get(pte) != 0) {
    return (ppn & ((1U << Pte::kNapotBits) - 1)) == Pte::kNapotPattern;
  }
  return (ppn & ((std::uint64_t{1} << (level * Pte::kIndexBits)) - 1)) == 0;
}

Translation make_translation(std::uint64_t pte, unsigned level, bool global, const Walk& walk) {
  const bool napot = Pte::N::get(pte) != 0;
  const unsigned log2_size =
      kPageShift + (napot ? Pte::kNapotBits : level * unsigned{Pte::kIndexBits});
  const std::uint64_t offset_mask = (std::uint64_t{1} << log2_size) - 1;
  Translation translation;
  translation.address = memory::PhysAddr{((Pte::Ppn::get(pte) << kPageShift) & ~offset_mask) |
                                         (walk.at.value & offset_mask)};
  translation.log2_size = static_cast<std::uint8_t>(log2_size);
  translation.readable = Pte::R::get(pte) != 0;
  translation.writable = Pte::W::get(pte) != 0 && Pte::D::get(pte) != 0;
  translation.executable = Pte::X::get(pte) != 0 && !(walk.supervisor && Pte::U::get(pte) != 0);
  translation.global = global;
  return translation;
}

}  // namespace

Cause page_fault(Access access) {
  switch (access) {
    case Access::kExecute:
      return Cause::kInstructionPageFault;
    case Access::kRead:
      return Cause::kReadPageFault;
    case Access::kWrite:
      break;
  }
  return Cause::kWritePageFault;
}

Cause access_fault(Access access) {
  switch (access) {
    case Access::kExecute:
      return Cause::kInstructionAccessFault;
    case Access::kRead:
      return Cause::kReadAccessFault;
    case Access::kWrite:
      break;
  }
  return Cause::kWriteAccessFault;
}

Result<Translation, Cause> walk_first_stage(const memory::Memory& memory, const Walk& walk) {
  const Unexpected fault{page_fault(walk.access)};
  const unsigned levels = first_stage_levels(walk.mode);
  if (!canonical(walk.at.value, levels)) return fault;

  memory::PhysAddr table{walk.root_ppn << kPageShift};
  unsigned level = levels - 1;
  bool global = false;
  while (true) {
    const std::uint64_t index =
        (walk.at.value >> (kPageShift + level * Pte::kIndexBits)) & Field<8, 0>::kMask;
    const memory::PhysAddr at = table.plus(index * 8);
    const auto loaded = memory.load64(at, std::memory_order_acquire);
    if (!loaded) return Unexpected{access_fault(walk.access)};
    std::uint64_t pte = *loaded;
    if (!entry_ok(pte, level)) return fault;
    if (!is_leaf(pte)) {
      if (!pointer_ok(pte) || level == 0) return fault;
      global = global || Pte::G::get(pte) != 0;
      table = memory::PhysAddr{Pte::Ppn::get(pte) << kPageShift};
      --level;
      continue;
    }

    if (!privilege_ok(pte, walk)) return fault;
    if (!walk.report_permissions && !access_ok(pte, walk.access)) return fault;
    if (!aligned(pte, level)) return fault;
    const bool sets_dirty = walk.wants_write && Pte::W::get(pte) != 0;
    const std::uint64_t used = Pte::A::kMask | (sets_dirty ? Pte::D::kMask : 0);
    if ((pte & used) != used) {
      if (!walk.updates_ad) return fault;
      const auto found = memory.compare_exchange64(at, pte, pte | used);
      if (!found) return Unexpected{access_fault(walk.access)};
      if (*found != pte) continue;  // software changed the entry: judge the new one
      pte |= used;
    }
    return make_translation(pte, level, global || Pte::G::get(pte) != 0, walk);
  }
}

}  // namespace tandem::iommu::detail
