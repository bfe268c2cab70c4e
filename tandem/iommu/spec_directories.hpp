// SPDX-License-Identifier: Apache-2.0
/// Device and process directories: how ids split into indices, their entries, device and process
/// contexts. Little-endian words.
///
/// Spec: RISC-V IOMMU, version 20260222; section numbers are that text's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tandem/base/field.hpp"

namespace tandem::iommu {

/// How a device id splits into indices, base format. Spec: §3 "Data Structures".
struct Ddi {
  using L0 = Field<6, 0>;
  using L1 = Field<15, 7>;
  using L2 = Field<23, 16>;

  static constexpr std::uint64_t index(unsigned level, std::uint32_t device_id) {
    return level == 0 ? L0::get(device_id) : level == 1 ? L1::get(device_id) : L2::get(device_id);
  }
};

/// The same, extended format.
struct ExtendedDdi {
  using L0 = Field<5, 0>;
  using L1 = Field<14, 6>;
  using L2 = Field<23, 15>;

  static constexpr std::uint64_t index(unsigned level, std::uint32_t device_id) {
    return level == 0 ? L0::get(device_id) : level == 1 ? L1::get(device_id) : L2::get(device_id);
  }
};

/// How a process id splits into indices. Spec: §3 "Data Structures".
struct Pdi {
  using L0 = Field<7, 0>;
  using L1 = Field<16, 8>;
  using L2 = Field<19, 17>;

  static constexpr std::uint64_t index(unsigned level, std::uint32_t process_id) {
    return level == 0   ? L0::get(process_id)
           : level == 1 ? L1::get(process_id)
                        : L2::get(process_id);
  }
};

/// Spec: §3.1.1 "Non-leaf DDT entry", §3.2.1 "Non-leaf PDT entry": the same layout.
struct DirectoryEntry {
  using V = Field<0>;
  using Ppn = Field<53, 10>;
  static constexpr std::uint64_t kReserved = Field<9, 1>::kMask | Field<63, 54>::kMask;

  static constexpr std::uint64_t make(std::uint64_t ppn) { return V::make(1) | Ppn::make(ppn); }
};

/// Encodings of iosatp.MODE and PC.fsc.MODE; kSv32 is one with SXL = 1, the others with SXL = 0.
/// Spec: §3.1.3.4 "First-Stage context (fsc)".
enum class FirstStageMode : std::uint8_t { kBare = 0, kSv32 = 8, kSv39 = 8, kSv48 = 9, kSv57 = 10 };

/// Encodings of iohgatp.MODE; kSv32x4 is one with GXL = 1, the others with GXL = 0. Spec: §3.1.3.2
/// "IO hypervisor guest address translation and protection (iohgatp)".
enum class SecondStageMode : std::uint8_t {
  kBare = 0,
  kSv32x4 = 8,
  kSv39x4 = 8,
  kSv48x4 = 9,
  kSv57x4 = 10
};

/// Encodings of pdtp.MODE. Spec: §3.1.3.4 "First-Stage context (fsc)".
enum class PdtpMode : std::uint8_t { kBare = 0, kPd8 = 1, kPd17 = 2, kPd20 = 3 };

/// iosatp, pdtp and PC.fsc. Spec: §3.1.3.4 "First-Stage context (fsc)".
struct Fsc {
  using Ppn = Field<43, 0>;
  using Mode = Field<63, 60>;
  static constexpr std::uint64_t kReserved = Field<59, 44>::kMask;

  static constexpr std::uint64_t make(FirstStageMode mode, std::uint64_t ppn = 0) {
    return Mode::make(static_cast<std::uint64_t>(mode)) | Ppn::make(ppn);
  }
  static constexpr std::uint64_t make(PdtpMode mode, std::uint64_t ppn = 0) {
    return Mode::make(static_cast<std::uint64_t>(mode)) | Ppn::make(ppn);
  }
};

/// Snapshot of one device context, base format.
///
/// A DeviceContext is a private copy: checks and uses see the same bits however software rewrites
/// the entry meanwhile.
///
/// Spec: §3.1.2 "Leaf DDT entry", §3.1.3 "Device-context fields".
struct DeviceContext {
  std::uint64_t tc = 0;       // §3.1.3.1 "Translation control (tc)"
  std::uint64_t iohgatp = 0;  // §3.1.3.2 "IO hypervisor guest address translation … (iohgatp)"
  std::uint64_t ta = 0;       // §3.1.3.3 "Translation attributes (ta)"
  std::uint64_t fsc = 0;      // §3.1.3.4 "First-Stage context (fsc)"

  struct Tc {
    using V = Field<0>;
    using EnAts = Field<1>;
    using EnPri = Field<2>;
    using T2gpa = Field<3>;
    using Dtf = Field<4>;
    using Pdtv = Field<5>;
    using Prpr = Field<6>;
    using Gade = Field<7>;
    using Sade = Field<8>;
    using Dpe = Field<9>;
    using Sbe = Field<10>;
    using Sxl = Field<11>;
    static constexpr std::uint64_t kReserved = Field<23, 12>::kMask | Field<63, 32>::kMask;
  };
  struct Iohgatp {
    using Ppn = Field<43, 0>;
    using Gscid = Field<59, 44>;
    using Mode = Field<63, 60>;

    static constexpr std::uint64_t make(SecondStageMode mode, std::uint64_t ppn,
                                        std::uint32_t gscid) {
      return Mode::make(static_cast<std::uint64_t>(mode)) | Gscid::make(gscid) | Ppn::make(ppn);
    }
  };
  struct Ta {
    using Pscid = Field<31, 12>;
    using Rcid = Field<51, 40>;
    using Mcid = Field<63, 52>;
    static constexpr std::uint64_t kReserved = Field<11, 0>::kMask | Field<39, 32>::kMask;
  };

  bool valid() const { return Tc::V::get(tc) != 0; }
  bool ats_enabled() const { return Tc::EnAts::get(tc) != 0; }
  bool page_requests_enabled() const { return Tc::EnPri::get(tc) != 0; }
  bool uses_process_directory() const { return Tc::Pdtv::get(tc) != 0; }
  bool hides_translation_faults() const { return Tc::Dtf::get(tc) != 0; }
  bool response_needs_pasid() const { return Tc::Prpr::get(tc) != 0; }
  bool updates_accessed_dirty() const { return Tc::Sade::get(tc) != 0; }
  bool updates_guest_accessed_dirty() const { return Tc::Gade::get(tc) != 0; }
  bool returns_guest_addresses() const { return Tc::T2gpa::get(tc) != 0; }
  bool has_second_stage() const { return Iohgatp::Mode::get(iohgatp) != 0; }
  std::uint32_t gscid() const { return static_cast<std::uint32_t>(Iohgatp::Gscid::get(iohgatp)); }
  bool has_default_process() const { return Tc::Dpe::get(tc) != 0; }
  bool has_32_bit_addresses() const { return Tc::Sxl::get(tc) != 0; }
  bool has_big_endian_tables() const { return Tc::Sbe::get(tc) != 0; }
};
static_assert(sizeof(DeviceContext) == 32, "a base-format DC is four doublewords");
static_assert(offsetof(DeviceContext, fsc) == 24);

/// A device context in extended format: with MSI page tables (capabilities.MSI_FLAT).
///
/// Spec: §3.1.3.5 "MSI page table pointer (msiptp)", §3.1.3.6 "MSI address mask (msi_addr_mask) and
///       pattern (msi_addr_pattern)".
struct ExtendedDeviceContext : DeviceContext {
  std::uint64_t msiptp = 0;
  std::uint64_t msi_addr_mask = 0;
  std::uint64_t msi_addr_pattern = 0;
  std::uint64_t reserved = 0;

  struct Msiptp {
    using Ppn = Field<43, 0>;
    using Mode = Field<63, 60>;
    static constexpr std::uint64_t kReserved = Field<59, 44>::kMask;
    static constexpr std::uint64_t kOff = 0;
    static constexpr std::uint64_t kFlat = 1;

    static constexpr std::uint64_t make_flat(std::uint64_t ppn) {
      return Mode::make(kFlat) | Ppn::make(ppn);
    }
  };

  constexpr bool has_msi_page_table() const { return Msiptp::Mode::get(msiptp) != Msiptp::kOff; }
};
static_assert(sizeof(ExtendedDeviceContext) == 64, "an extended-format DC is eight doublewords");

/// Snapshot of one process context.
///
/// Spec: §3.2.2 "Leaf PDT entry", §3.2.3 "Process-context fields".
struct ProcessContext {
  std::uint64_t ta = 0;   // §3.2.3.1 "Translation attributes (ta)"
  std::uint64_t fsc = 0;  // §3.2.3.2 "First-Stage context (fsc)"

  struct Ta {
    using V = Field<0>;
    using Ens = Field<1>;
    using Sum = Field<2>;
    using Pscid = Field<31, 12>;
    static constexpr std::uint64_t kReserved = Field<11, 3>::kMask | Field<63, 32>::kMask;
  };

  bool valid() const { return Ta::V::get(ta) != 0; }
  bool allows_supervisor() const { return Ta::Ens::get(ta) != 0; }
  bool supervisor_may_use_user_pages() const { return Ta::Sum::get(ta) != 0; }
};
static_assert(sizeof(ProcessContext) == 16, "a PC is two doublewords");
static_assert(offsetof(ProcessContext, fsc) == 8);

}  // namespace tandem::iommu
