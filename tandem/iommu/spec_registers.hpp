// SPDX-License-Identifier: Apache-2.0
/// The RISC-V IOMMU's registers: where they are, and their fields.
///
/// Spec: RISC-V IOMMU, version 20260222; section numbers are that text's.
#pragma once

#include <cstdint>

#include "tandem/base/field.hpp"

namespace tandem::iommu {

/// Byte offsets. Spec: §6.1 "Register layout".
namespace reg {
inline constexpr std::uint32_t kCapabilities = 0;
inline constexpr std::uint32_t kFctl = 8;
inline constexpr std::uint32_t kDdtp = 16;
inline constexpr std::uint32_t kCqb = 24;
inline constexpr std::uint32_t kCqh = 32;
inline constexpr std::uint32_t kCqt = 36;
inline constexpr std::uint32_t kFqb = 40;
inline constexpr std::uint32_t kFqh = 48;
inline constexpr std::uint32_t kFqt = 52;
inline constexpr std::uint32_t kPqb = 56;
inline constexpr std::uint32_t kPqh = 64;
inline constexpr std::uint32_t kPqt = 68;
inline constexpr std::uint32_t kCqcsr = 72;
inline constexpr std::uint32_t kFqcsr = 76;
inline constexpr std::uint32_t kPqcsr = 80;
inline constexpr std::uint32_t kIpsr = 84;
inline constexpr std::uint32_t kIocountovf = 88;
inline constexpr std::uint32_t kIocountinh = 92;
inline constexpr std::uint32_t kIohpmcycles = 96;
inline constexpr std::uint32_t kIohpmctr1 = 104;
inline constexpr std::uint32_t kIohpmevt1 = 352;
inline constexpr std::uint32_t kTrReqIova = 600;
inline constexpr std::uint32_t kTrReqCtl = 608;
inline constexpr std::uint32_t kTrResponse = 616;
inline constexpr std::uint32_t kIommuQosid = 624;
inline constexpr std::uint32_t kIcvec = 760;
inline constexpr std::uint32_t kMsiAddress = 768;  // msi_cfg_tbl: of the first entry
inline constexpr std::uint32_t kMsiData = 776;
inline constexpr std::uint32_t kMsiControl = 780;
inline constexpr std::uint32_t kMsiEntryBytes = 16;
inline constexpr unsigned kMsiEntries = 16;
inline constexpr std::uint32_t kReservedFrom = 1024;
inline constexpr std::uint32_t kFileBytes = 4096;
}  // namespace reg

/// What is in a register of which `value` was written where `mask` is set.
constexpr std::uint64_t merged(std::uint64_t old, std::uint64_t value, std::uint64_t mask) {
  return (old & ~mask) | (value & mask);
}

/// Spec: §6.3 "IOMMU capabilities (capabilities)".
struct Capabilities {
  using Version = Field<7, 0>;
  using Sv32 = Field<8>;
  using Sv39 = Field<9>;
  using Sv48 = Field<10>;
  using Sv57 = Field<11>;
  using Svrsw60t59b = Field<14>;
  using Svpbmt = Field<15>;
  using Sv32x4 = Field<16>;
  using Sv39x4 = Field<17>;
  using Sv48x4 = Field<18>;
  using Sv57x4 = Field<19>;
  using AmoMrif = Field<21>;
  using MsiFlat = Field<22>;
  using MsiMrif = Field<23>;
  using AmoHwad = Field<24>;
  using Ats = Field<25>;
  using T2gpa = Field<26>;
  using End = Field<27>;
  using Igs = Field<29, 28>;
  using Hpm = Field<30>;
  using Dbg = Field<31>;
  using Pas = Field<37, 32>;
  using Pd8 = Field<38>;
  using Pd17 = Field<39>;
  using Pd20 = Field<40>;
  using Qosid = Field<41>;
  using Nl = Field<42>;
  using S = Field<43>;

  static constexpr std::uint64_t kIgsMsi = 0;
  static constexpr std::uint64_t kIgsWsi = 1;
  static constexpr std::uint64_t kIgsBoth = 2;
};

/// Spec: §6.4 "Features-control register (fctl)".
struct Fctl {
  using Be = Field<0>;
  using Wsi = Field<1>;
  using Gxl = Field<2>;
};

/// Spec: §6.5 "Device-directory-table pointer (ddtp)".
struct Ddtp {
  using Mode = Field<3, 0>;
  using Busy = Field<4>;
  using Ppn = Field<53, 10>;

  enum class ModeValue : std::uint8_t { kOff = 0, kBare = 1, k1Lvl = 2, k2Lvl = 3, k3Lvl = 4 };

  static constexpr std::uint64_t make(ModeValue mode, std::uint64_t ppn = 0) {
    return Mode::make(static_cast<std::uint64_t>(mode)) | Ppn::make(ppn);
  }
};

/// cqb, fqb and pqb. Spec: §6.6 "Command-queue base (cqb)", §6.9, §6.12.
struct QueueBase {
  using Log2SizeMinus1 = Field<4, 0>;
  using Ppn = Field<53, 10>;

  /// `log2_entries` ≥ 1.
  static constexpr std::uint64_t make(unsigned log2_entries, std::uint64_t ppn) {
    return Log2SizeMinus1::make(log2_entries - 1) | Ppn::make(ppn);
  }
};

/// Spec: §6.15 "Command-queue CSR (cqcsr)".
struct Cqcsr {
  using Cqen = Field<0>;
  using Cie = Field<1>;
  using Cqmf = Field<8>;
  using CmdTo = Field<9>;
  using CmdIll = Field<10>;
  using FenceWIp = Field<11>;
  using Cqon = Field<16>;
  using Busy = Field<17>;
};

/// Spec: §6.16 "Fault queue CSR (fqcsr)".
struct Fqcsr {
  using Fqen = Field<0>;
  using Fie = Field<1>;
  using Fqmf = Field<8>;
  using Fqof = Field<9>;
  using Fqon = Field<16>;
  using Busy = Field<17>;
};

/// Spec: §6.17 "Page-request-queue CSR (pqcsr)".
struct Pqcsr {
  using Pqen = Field<0>;
  using Pie = Field<1>;
  using Pqmf = Field<8>;
  using Pqof = Field<9>;
  using Pqon = Field<16>;
  using Busy = Field<17>;
};

/// Spec: §6.18 "Interrupt pending status register (ipsr)".
struct Ipsr {
  using Cip = Field<0>;
  using Fip = Field<1>;
  using Pmip = Field<2>;
  using Pip = Field<3>;
};

/// Spec: §6.21 "Performance-monitoring cycles counter (iohpmcycles)".
struct Iohpmcycles {
  using Counter = Field<62, 0>;
  using Of = Field<63>;
};

/// What iohpmevt can select. Spec: §6.23, table "Standard Events list".
enum class HpmEvent : std::uint8_t {
  kNone = 0,
  kUntranslatedRequest = 1,
  kTranslatedRequest = 2,
  kTranslationRequest = 3,
  kTlbMiss = 4,
  kDeviceDirectoryWalk = 5,
  kProcessDirectoryWalk = 6,
  kFirstStageWalk = 7,
  kSecondStageWalk = 8,
};

/// Spec: §6.23 "Performance-monitoring event selectors (iohpmevt1-31)".
struct Iohpmevt {
  using EventId = Field<14, 0>;
  using Dmask = Field<15>;
  using PidPscid = Field<35, 16>;
  using DidGscid = Field<59, 36>;
  using PvPscv = Field<60>;
  using DvGscv = Field<61>;
  using Idt = Field<62>;
  using Of = Field<63>;
};

/// Spec: §6.24 "Translation-request IOVA (tr_req_iova)".
struct TrReqIova {
  using Vpn = Field<63, 12>;
};

/// Spec: §6.25 "Translation-request control (tr_req_ctl)".
struct TrReqCtl {
  using Go = Field<0>;  // Go/Busy
  using Priv = Field<1>;
  using Exe = Field<2>;
  using Nw = Field<3>;
  using Pid = Field<31, 12>;
  using Pv = Field<32>;
  using Did = Field<63, 40>;
  static constexpr std::uint64_t kDefined =
      Go::kMask | Priv::kMask | Exe::kMask | Nw::kMask | Pid::kMask | Pv::kMask | Did::kMask;
};

/// Spec: §6.26 "Translation-response (tr_response)".
struct TrResponse {
  using Fault = Field<0>;
  using Pbmt = Field<8, 7>;
  using S = Field<9>;
  using Ppn = Field<53, 10>;
};

/// Spec: §6.27 "IOMMU QoS ID (iommu_qosid)".
struct IommuQosid {
  using Rcid = Field<11, 0>;
  using Mcid = Field<27, 16>;
};

/// Spec: §6.28 "Interrupt-cause-to-vector register (icvec)".
struct Icvec {
  using Civ = Field<3, 0>;
  using Fiv = Field<7, 4>;
  using Pmiv = Field<11, 8>;
  using Piv = Field<15, 12>;
};

/// An entry of msi_cfg_tbl. Spec: §6.29 "MSI configuration table (msi_cfg_tbl)".
struct MsiConfig {
  using Address = Field<55, 2>;  // in its place: the low bits are 0
  using M = Field<0>;            // of msi_vec_ctl
};

}  // namespace tandem::iommu
