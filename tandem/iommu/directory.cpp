// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/directory.hpp"

#include "tandem/iommu/detail/capabilities.hpp"

namespace tandem::iommu::detail {
namespace {

using memory::Memory;
using memory::PhysAddr;

/// The causes that differ between the two directories.
struct Causes {
  Cause load_fault;
  Cause not_valid;
  Cause misconfigured;
};
constexpr Causes kDdt{Cause::kDdtLoadFault, Cause::kDdtNotValid, Cause::kDdtMisconfigured};
constexpr Causes kPdt{Cause::kPdtLoadFault, Cause::kPdtNotValid, Cause::kPdtMisconfigured};

/// Follows non-leaf entries from the root page `ppn` of `levels` levels to the leaf page.
template <class Index>
Result<PhysAddr, Cause> leaf_page(const Memory& memory, std::uint64_t ppn, unsigned levels,
                                  std::uint32_t id, const Causes& causes) {
  PhysAddr page{ppn << kPageShift};
  for (unsigned level = levels - 1; level > 0; --level) {
    const auto entry =
        memory.load64(page.plus(Index::index(level, id) * 8), std::memory_order_acquire);
    if (!entry) return Unexpected{causes.load_fault};
    if (DirectoryEntry::V::get(*entry) == 0) return Unexpected{causes.not_valid};
    if ((*entry & DirectoryEntry::kReserved) != 0) return Unexpected{causes.misconfigured};
    page = PhysAddr{DirectoryEntry::Ppn::get(*entry) << kPageShift};
  }
  return page;
}

/// Whether `mode` is an iosatp or PC.fsc mode that the capabilities offer (SXL = 0).
bool first_stage_mode_supported(std::uint64_t mode) {
  switch (static_cast<FirstStageMode>(mode)) {
    case FirstStageMode::kBare:
      return true;
    case FirstStageMode::kSv39:
      return Capabilities::Sv39::get(kCapabilities) != 0;
    case FirstStageMode::kSv48:
      return Capabilities::Sv48::get(kCapabilities) != 0;
    case FirstStageMode::kSv57:
      return Capabilities::Sv57::get(kCapabilities) != 0;
  }
  return false;
}

bool pdtp_mode_supported(std::uint64_t mode) {
  switch (static_cast<PdtpMode>(mode)) {
    case PdtpMode::kBare:
      return true;
    case PdtpMode::kPd8:
      return Capabilities::Pd8::get(kCapabilities) != 0;
    case PdtpMode::kPd17:
      return Capabilities::Pd17::get(kCapabilities) != 0;
    case PdtpMode::kPd20:
      return Capabilities::Pd20::get(kCapabilities) != 0;
  }
  return false;
}

}  // namespace

unsigned ddt_levels(std::uint64_t ddtp) {
  switch (static_cast<Ddtp::ModeValue>(Ddtp::Mode::get(ddtp))) {
    case Ddtp::ModeValue::k1Lvl:
      return 1;
    case Ddtp::ModeValue::k2Lvl:
      return 2;
    case Ddtp::ModeValue::k3Lvl:
      return 3;
    case Ddtp::ModeValue::kOff:
    case Ddtp::ModeValue::kBare:
      break;
  }
  return 0;
}

bool device_id_fits(unsigned levels, std::uint32_t device_id) {
  if (levels < 3 && Ddi::L2::get(device_id) != 0) return false;
  return levels >= 2 || Ddi::L1::get(device_id) == 0;
}

bool process_id_fits(PdtpMode mode, std::uint32_t process_id) {
  if (mode == PdtpMode::kPd17) return Pdi::L2::get(process_id) == 0;
  if (mode == PdtpMode::kPd8) return Pdi::L2::get(process_id) == 0 && Pdi::L1::get(process_id) == 0;
  return true;
}

bool well_formed(const DeviceContext& context) {
  using Tc = DeviceContext::Tc;
  using Iohgatp = DeviceContext::Iohgatp;
  using Ta = DeviceContext::Ta;
  static_assert(Capabilities::Ats::get(kCapabilities) == 1);
  static_assert(Capabilities::AmoHwad::get(kCapabilities) == 1);
  static_assert(Capabilities::T2gpa::get(kCapabilities) == 0);
  static_assert(Capabilities::End::get(kCapabilities) == 0 && Fctl::Be::get(kFctl) == 0);
  static_assert(Capabilities::Qosid::get(kCapabilities) == 0 && Fctl::Gxl::get(kFctl) == 0);

  if ((context.tc & Tc::kReserved) != 0) return false;
  if (!context.ats_enabled() && context.page_requests_enabled()) return false;
  if (!context.page_requests_enabled() && context.response_needs_pasid()) return false;
  if (Tc::T2gpa::get(context.tc) != 0) return false;
  if (Tc::Sbe::get(context.tc) != 0 || Tc::Sxl::get(context.tc) != 0) return false;
  if (!context.uses_process_directory() && context.has_default_process()) return false;
  // No second stage is offered: Bare is the only mode. GSCID and PPN are then don't-care.
  if (Iohgatp::Mode::get(context.iohgatp) != 0) return false;
  if ((context.ta & (Ta::kReserved | Ta::Rcid::kMask | Ta::Mcid::kMask)) != 0) return false;
  if ((context.fsc & Fsc::kReserved) != 0) return false;
  const auto mode = Fsc::Mode::get(context.fsc);
  return context.uses_process_directory() ? pdtp_mode_supported(mode)
                                          : first_stage_mode_supported(mode);
}

bool well_formed(const ProcessContext& context) {
  return (context.ta & ProcessContext::Ta::kReserved) == 0 && (context.fsc & Fsc::kReserved) == 0 &&
         first_stage_mode_supported(Fsc::Mode::get(context.fsc));
}

Result<DeviceContext, Cause> load_device_context(const Memory& memory, std::uint64_t ddtp,
                                                 std::uint32_t device_id) {
  const auto page = leaf_page<Ddi>(memory, Ddtp::Ppn::get(ddtp), ddt_levels(ddtp), device_id, kDdt);
  if (!page) return Unexpected{page.error()};
  PhysAddr at = page->plus(Ddi::index(0, device_id) * sizeof(DeviceContext));
  DeviceContext context;
  // tc first, with acquire: whoever sets V stores tc last.
  for (std::uint64_t* word : {&context.tc, &context.iohgatp, &context.ta, &context.fsc}) {
    const auto value = memory.load64(at, std::memory_order_acquire);
    if (!value) return Unexpected{Cause::kDdtLoadFault};
    *word = *value;
    at = at.plus(sizeof *word);
  }
  if (!context.valid()) return Unexpected{Cause::kDdtNotValid};
  if (!well_formed(context)) return Unexpected{Cause::kDdtMisconfigured};
  return context;
}

Result<ProcessContext, Cause> load_process_context(const Memory& memory, std::uint64_t pdtp,
                                                   std::uint32_t process_id) {
  const auto levels = static_cast<unsigned>(Fsc::Mode::get(pdtp));  // PD8, PD17, PD20 are 1, 2, 3
  const auto page = leaf_page<Pdi>(memory, Fsc::Ppn::get(pdtp), levels, process_id, kPdt);
  if (!page) return Unexpected{page.error()};
  PhysAddr at = page->plus(Pdi::index(0, process_id) * sizeof(ProcessContext));
  ProcessContext context;
  for (std::uint64_t* word : {&context.ta, &context.fsc}) {
    const auto value = memory.load64(at, std::memory_order_acquire);
    if (!value) return Unexpected{Cause::kPdtLoadFault};
    *word = *value;
    at = at.plus(sizeof *word);
  }
  if (!context.valid()) return Unexpected{Cause::kPdtNotValid};
  if (!well_formed(context)) return Unexpected{Cause::kPdtMisconfigured};
  return context;
}

}  // namespace tandem::iommu::detail
