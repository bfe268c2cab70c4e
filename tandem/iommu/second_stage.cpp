// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/second_stage.hpp"

namespace tandem::iommu::detail {
namespace {

GuestFault memory_fault(memory::Fault fault) {
  return fault == memory::Fault::kPoisoned ? GuestFault::kCorrupt : GuestFault::kAccessFault;
}

/// Where a stage is Bare it is one page of this size ("recommended to be large", §3.6).
constexpr unsigned kBareLog2Size = 30;
constexpr std::uint64_t kAllowsAll = Pte::V::kMask | Pte::R::kMask | Pte::W::kMask | Pte::X::kMask |
                                     Pte::U::kMask | Pte::A::kMask | Pte::D::kMask;

}  // namespace

WalkFault walk_fault(GuestFault why, Access access, std::uint64_t address, bool implicit,
                     bool write) {
  switch (why) {
    case GuestFault::kAccessFault:
      return {access_fault(access)};
    case GuestFault::kCorrupt:
      return {Cause::kPageTableCorrupt};
    case GuestFault::kPageFault:
      break;
  }
  return {guest_page_fault(access), guest_fault_value(address, implicit, write)};
}

SecondStage make_second_stage(const DeviceContext& context, unsigned* walks) {
  using Iohgatp = DeviceContext::Iohgatp;
  SecondStage stage;
  stage.scheme = scheme_of(static_cast<SecondStageMode>(Iohgatp::Mode::get(context.iohgatp)));
  stage.root_ppn = Iohgatp::Ppn::get(context.iohgatp);
  stage.updates_ad = context.updates_guest_accessed_dirty();
  stage.walks = walks;
  return stage;
}

Result<GuestPage, GuestFault> translate_guest(TableReader& reader, const Config& config,
                                              const SecondStage& stage, std::uint64_t address,
                                              AccessTypes types, bool sets_dirty) {
  if (stage.is_bare()) return GuestPage{PhysAddr{address}, kBareLog2Size, kAllowsAll};
  if (stage.walks != nullptr) ++*stage.walks;
  const Unexpected fault{GuestFault::kPageFault};
  if (address >> stage.scheme.address_bits() != 0) return fault;

  std::uint64_t table = stage.root_ppn << kPageShift;
  unsigned level = stage.scheme.levels - 1U;
  while (true) {
    const PhysAddr at{table + stage.scheme.index(level, address) * sizeof(std::uint64_t)};
    const auto loaded = reader.load64(at, std::memory_order_acquire);
    if (!loaded) return Unexpected{memory_fault(loaded.error())};
    const std::uint64_t pte = *loaded;
    const EntryKind kind = kind_of(config, pte, level);
    if (kind == EntryKind::kInvalid) return fault;
    if (kind == EntryKind::kPointer) {
      table = Pte::Ppn::get(pte) << kPageShift;
      --level;
      continue;
    }

    // The privilege is always a user's.
    if (!types.allowed_by(pte) || Pte::U::get(pte) == 0 || !is_aligned(pte, level)) return fault;
    const bool dirty = sets_dirty && Pte::W::get(pte) != 0;
    const std::uint64_t used = pte | Pte::A::kMask | (dirty ? Pte::D::kMask : 0);
    if (used != pte) {
      if (!stage.updates_ad) return fault;
      const auto found = reader.compare_exchange64(at, pte, used);
      if (!found) return Unexpected{memory_fault(found.error())};
      if (*found != pte) continue;  // software changed the entry: judge the new one
    }
    const unsigned log2_size = log2_size_of(used, level);
    return GuestPage{address_in_page(Pte::Ppn::get(used), log2_size, address),
                     static_cast<std::uint8_t>(log2_size), used};
  }
}

}  // namespace tandem::iommu::detail
