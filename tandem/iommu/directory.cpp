// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/directory.hpp"

#include <array>

namespace tandem::iommu::detail {
namespace {

using memory::PhysAddr;

/// A non-leaf entry: where the next table is, or why there is none.
struct Causes {
  Cause load_fault;
  Cause corrupt;
  Cause not_valid;
  Cause misconfigured;
};
constexpr Causes kDdt{Cause::kDdtLoadFault, Cause::kDdtCorrupt, Cause::kDdtNotValid,
                      Cause::kDdtMisconfigured};
constexpr Causes kPdt{Cause::kPdtLoadFault, Cause::kPdtCorrupt, Cause::kPdtNotValid,
                      Cause::kPdtMisconfigured};

Result<std::uint64_t, Cause> load_word(TableReader& reader, PhysAddr at, bool big_endian,
                                       const Causes& causes) {
  const auto loaded = reader.load64(at, std::memory_order_acquire);
  if (!loaded) return Unexpected{load_cause(loaded.error(), causes.load_fault, causes.corrupt)};
  return in_byte_order(*loaded, big_endian);
}

Result<std::uint64_t, Cause> next_page(TableReader& reader, PhysAddr entry_at, bool big_endian,
                                       const Causes& causes) {
  const auto entry = load_word(reader, entry_at, big_endian, causes);
  if (!entry) return entry;
  if (DirectoryEntry::V::get(*entry) == 0) return Unexpected{causes.not_valid};
  if ((*entry & DirectoryEntry::kReserved) != 0) return Unexpected{causes.misconfigured};
  return DirectoryEntry::Ppn::get(*entry) << kPageShift;
}

/// The doublewords of a context, the one with V first and with acquire: whoever sets V stores it
/// last.
template <std::size_t N>
Result<std::array<std::uint64_t, N>, Cause> load_words(TableReader& reader, PhysAddr at,
                                                       std::size_t count, bool big_endian,
                                                       const Causes& causes) {
  std::array<std::uint64_t, N> words{};
  for (std::size_t i = 0; i < count; ++i) {
    const auto value = load_word(reader, at.plus(i * sizeof *words.data()), big_endian, causes);
    if (!value) return Unexpected{value.error()};
    words[i] = *value;
  }
  return words;
}

/// Whether `mode` is an iosatp or PC.fsc mode that the capabilities offer. `sxl`: tc.SXL.
bool first_stage_mode_supported(const Config& config, bool sxl, std::uint64_t mode) {
  if (sxl) {
    const bool sv32 = static_cast<FirstStageMode>(mode) == FirstStageMode::kSv32;
    return mode == 0 || (sv32 && config.has<Capabilities::Sv32>());
  }
  switch (static_cast<FirstStageMode>(mode)) {
    case FirstStageMode::kBare:
      return true;
    case FirstStageMode::kSv39:
      return config.has<Capabilities::Sv39>();
    case FirstStageMode::kSv48:
      return config.has<Capabilities::Sv48>();
    case FirstStageMode::kSv57:
      return config.has<Capabilities::Sv57>();
  }
  return false;
}

bool second_stage_mode_supported(const Config& config, std::uint64_t mode) {
  if (config.has_32_bit_guests()) {
    const bool sv32x4 = static_cast<SecondStageMode>(mode) == SecondStageMode::kSv32x4;
    return mode == 0 || (sv32x4 && config.has<Capabilities::Sv32x4>());
  }
  switch (static_cast<SecondStageMode>(mode)) {
    case SecondStageMode::kBare:
      return true;
    case SecondStageMode::kSv39x4:
      return config.has<Capabilities::Sv39x4>();
    case SecondStageMode::kSv48x4:
      return config.has<Capabilities::Sv48x4>();
    case SecondStageMode::kSv57x4:
      return config.has<Capabilities::Sv57x4>();
  }
  return false;
}

bool pdtp_mode_supported(const Config& config, std::uint64_t mode) {
  switch (static_cast<PdtpMode>(mode)) {
    case PdtpMode::kBare:
      return true;
    case PdtpMode::kPd8:
      return config.has<Capabilities::Pd8>();
    case PdtpMode::kPd17:
      return config.has<Capabilities::Pd17>();
    case PdtpMode::kPd20:
      return config.has<Capabilities::Pd20>();
  }
  return false;
}

/// Whether tc.SXL is legal: 1 where fctl.GXL is, else as software might have set fctl.GXL.
bool sxl_legal(const Config& config, const DeviceContext& context) {
  if (config.has_32_bit_guests()) return context.has_32_bit_addresses();
  return !context.has_32_bit_addresses() || config.is_writable<Fctl::Gxl>();
}

/// Whether tc.SBE is legal: as fctl.BE is, or as software might have set it.
bool sbe_legal(const Config& config, const DeviceContext& context) {
  return context.has_big_endian_tables() == config.big_endian() || config.is_writable<Fctl::Be>();
}

/// Translation control against the capabilities.
bool control_ok(const Config& config, const DeviceContext& context) {
  using Tc = DeviceContext::Tc;
  constexpr std::uint64_t kAtsBits = Tc::EnAts::kMask | Tc::EnPri::kMask | Tc::Prpr::kMask;
  constexpr std::uint64_t kAdBits = Tc::Sade::kMask | Tc::Gade::kMask;
  if ((context.tc & Tc::kReserved) != 0) return false;
  if (!config.has<Capabilities::Ats>() && (context.tc & kAtsBits) != 0) return false;
  if (!config.has<Capabilities::AmoHwad>() && (context.tc & kAdBits) != 0) return false;
  if (!context.ats_enabled()) {
    if (context.page_requests_enabled() || context.returns_guest_addresses()) return false;
  }
  if (!context.page_requests_enabled() && context.response_needs_pasid()) return false;
  if (context.returns_guest_addresses()) {
    if (!config.has<Capabilities::T2gpa>() || !context.has_second_stage()) return false;
  }
  if (!sxl_legal(config, context) || !sbe_legal(config, context)) return false;
  return context.uses_process_directory() || !context.has_default_process();
}

bool second_stage_ok(const Config& config, const DeviceContext& context) {
  using Iohgatp = DeviceContext::Iohgatp;
  constexpr std::uint64_t kRootPages = 4;
  if (!second_stage_mode_supported(config, Iohgatp::Mode::get(context.iohgatp))) return false;
  return !context.has_second_stage() || Iohgatp::Ppn::get(context.iohgatp) % kRootPages == 0;
}

/// How many bits a guest physical address has. Spec: §3.1.3.6.
unsigned guest_address_bits(const Config& config) {
  if (config.has<Capabilities::Sv57x4>()) return 59;
  if (config.has<Capabilities::Sv48x4>()) return 50;
  if (config.has<Capabilities::Sv39x4>()) return 41;
  if (config.has<Capabilities::Sv32x4>()) return 34;
  return static_cast<unsigned>(Capabilities::Pas::get(config.capabilities));
}

bool msi_ok(const Config& config, const ExtendedDeviceContext& context) {
  using Msiptp = ExtendedDeviceContext::Msiptp;
  const std::uint64_t mode = Msiptp::Mode::get(context.msiptp);
  if ((context.msiptp & Msiptp::kReserved) != 0 || context.reserved != 0) return false;
  if (mode != Msiptp::kOff && mode != Msiptp::kFlat) return false;
  if (mode != Msiptp::kOff && !context.has_second_stage()) return false;
  const std::uint64_t reserved = ~std::uint64_t{0} << (guest_address_bits(config) - kPageShift);
  return ((context.msi_addr_mask | context.msi_addr_pattern) & reserved) == 0;
}

bool qos_ids_fit(const Config& config, std::uint64_t rcid, std::uint64_t mcid) {
  return rcid >> config.rcid_bits() == 0 && mcid >> config.mcid_bits() == 0;
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

bool device_id_fits(const Config& config, unsigned levels, std::uint32_t device_id) {
  const bool extended = config.has<Capabilities::MsiFlat>();
  const auto index = [&](unsigned level) {
    return extended ? ExtendedDdi::index(level, device_id) : Ddi::index(level, device_id);
  };
  return (levels >= 3 || index(2) == 0) && (levels >= 2 || index(1) == 0);
}

bool process_id_exists(const Config& config, std::uint32_t process_id) {
  if (config.has<Capabilities::Pd20>()) return true;
  const PdtpMode widest = config.has<Capabilities::Pd17>() ? PdtpMode::kPd17 : PdtpMode::kPd8;
  return process_id_fits(widest, process_id);
}

bool process_id_fits(PdtpMode mode, std::uint32_t process_id) {
  if (mode == PdtpMode::kPd17) return Pdi::L2::get(process_id) == 0;
  if (mode == PdtpMode::kPd8) return Pdi::L2::get(process_id) == 0 && Pdi::L1::get(process_id) == 0;
  return true;
}

bool well_formed(const Config& config, const ExtendedDeviceContext& context) {
  using Ta = DeviceContext::Ta;
  if (!control_ok(config, context) || !second_stage_ok(config, context)) return false;
  if (!msi_ok(config, context)) return false;
  if ((context.ta & Ta::kReserved) != 0) return false;
  if (!qos_ids_fit(config, Ta::Rcid::get(context.ta), Ta::Mcid::get(context.ta))) return false;
  if ((context.fsc & Fsc::kReserved) != 0) return false;
  const auto mode = Fsc::Mode::get(context.fsc);
  return context.uses_process_directory()
             ? pdtp_mode_supported(config, mode)
             : first_stage_mode_supported(config, context.has_32_bit_addresses(), mode);
}

bool well_formed(const Config& config, const DeviceContext& device, const ProcessContext& context) {
  return (context.ta & ProcessContext::Ta::kReserved) == 0 && (context.fsc & Fsc::kReserved) == 0 &&
         first_stage_mode_supported(config, device.has_32_bit_addresses(),
                                    Fsc::Mode::get(context.fsc));
}

Result<ExtendedDeviceContext, Cause> load_device_context(TableReader& reader, const Config& config,
                                                         std::uint64_t ddtp,
                                                         std::uint32_t device_id) {
  const bool extended = config.has<Capabilities::MsiFlat>();
  const std::size_t bytes = extended ? sizeof(ExtendedDeviceContext) : sizeof(DeviceContext);
  const auto index = [&](unsigned level) {
    return extended ? ExtendedDdi::index(level, device_id) : Ddi::index(level, device_id);
  };
  const bool big_endian = config.big_endian();
  PhysAddr page{Ddtp::Ppn::get(ddtp) << kPageShift};
  for (unsigned level = ddt_levels(ddtp) - 1; level > 0; --level) {
    ++reader.loads.device_directory;
    const auto next =
        next_page(reader, page.plus(index(level) * sizeof(std::uint64_t)), big_endian, kDdt);
    if (!next) return Unexpected{next.error()};
    page = PhysAddr{*next};
  }
  ++reader.loads.device_directory;
  const auto words = load_words<8>(reader, page.plus(index(0) * bytes),
                                   bytes / sizeof(std::uint64_t), big_endian, kDdt);
  if (!words) return Unexpected{words.error()};
  const auto& [tc, iohgatp, ta, fsc, msiptp, mask, pattern, reserved] = *words;
  const ExtendedDeviceContext context{{tc, iohgatp, ta, fsc}, msiptp, mask, pattern, reserved};
  if (!context.valid()) return Unexpected{Cause::kDdtNotValid};
  if (!well_formed(config, context)) return Unexpected{Cause::kDdtMisconfigured};
  return context;
}

Result<ProcessContext, WalkFault> load_process_context(TableReader& reader, const Config& config,
                                                       const DeviceContext& device,
                                                       std::uint32_t process_id, Access access) {
  const SecondStage stage = make_second_stage(config, device);
  const bool big_endian = device.has_big_endian_tables();
  const auto fault = [](Cause cause) { return Unexpected{WalkFault{cause}}; };
  std::uint64_t table = Fsc::Ppn::get(device.fsc) << kPageShift;
  for (auto level = static_cast<unsigned>(Fsc::Mode::get(device.fsc));;) {  // PD8 is 1, PD20 is 3
    --level;
    const std::size_t bytes = level == 0 ? sizeof(ProcessContext) : sizeof(std::uint64_t);
    const std::uint64_t address = table + Pdi::index(level, process_id) * bytes;
    const auto entry = translate_implicit(reader, config, stage, address, /*write=*/false);
    if (!entry) {
      if (entry.error() == GuestFault::kAccessFault) return fault(Cause::kPdtLoadFault);
      if (entry.error() == GuestFault::kCorrupt) return fault(Cause::kPdtCorrupt);
      return Unexpected{
          walk_fault(entry.error(), access, address, /*implicit=*/true, /*write=*/false)};
    }
    ++reader.loads.process_directory;
    if (level > 0) {
      const auto next = next_page(reader, entry->address, big_endian, kPdt);
      if (!next) return fault(next.error());
      table = *next;
      continue;
    }
    const auto words = load_words<2>(reader, entry->address, 2, big_endian, kPdt);
    if (!words) return fault(words.error());
    const ProcessContext context{(*words)[0], (*words)[1]};
    if (!context.valid()) return fault(Cause::kPdtNotValid);
    if (!well_formed(config, device, context)) return fault(Cause::kPdtMisconfigured);
    return context;
  }
}

}  // namespace tandem::iommu::detail
