// SPDX-License-Identifier: Apache-2.0
/// The RISC-V IOMMU's registers, in-memory structures, commands and records, as its specification
/// writes them, for the model and for whoever drives it.
///
/// Edition: version 20260222; section numbers are that text's. Words are little-endian in memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "tandem/base/field.hpp"
#include "tandem/iommu/spec_msi.hpp"

namespace tandem::iommu {

inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr unsigned kPageShift = 12;

// ---- Causes and transaction types -----------------------------------------------------------

/// Why an inbound transaction stopped.
///
/// Spec: §4.2 "Fault/Event-Queue (FQ)", table "Fault record CAUSE field encodings".
enum class Cause : std::uint16_t {
  kInstructionAccessFault = 1,
  kReadAddressMisaligned = 4,
  kReadAccessFault = 5,
  kWriteAddressMisaligned = 6,
  kWriteAccessFault = 7,
  kInstructionPageFault = 12,
  kReadPageFault = 13,
  kWritePageFault = 15,
  kInstructionGuestPageFault = 20,
  kReadGuestPageFault = 21,
  kWriteGuestPageFault = 23,
  kAllInboundDisallowed = 256,
  kDdtLoadFault = 257,
  kDdtNotValid = 258,
  kDdtMisconfigured = 259,
  kTtypeBlocked = 260,
  kMsiPteLoadFault = 261,
  kMsiPteNotValid = 262,
  kMsiPteMisconfigured = 263,
  kMrifAccessFault = 264,
  kPdtLoadFault = 265,
  kPdtNotValid = 266,
  kPdtMisconfigured = 267,
  kDdtCorrupt = 268,
  kPdtCorrupt = 269,
  kMsiPtCorrupt = 270,
  kMsiMrifCorrupt = 271,
  kInternalDataPathError = 272,
  kIommuMsiWriteFault = 273,
  kPageTableCorrupt = 274,
};

/// Spec: §4.2, table "Fault record TTYP field encodings".
enum class TransactionType : std::uint8_t {
  kNone = 0,
  kUntranslatedExecute = 1,
  kUntranslatedRead = 2,
  kUntranslatedWrite = 3,
  kTranslatedExecute = 5,
  kTranslatedRead = 6,
  kTranslatedWrite = 7,
  kAtsTranslationRequest = 8,
  kMessageRequest = 9,
};

/// The PCIe message code of a Page Request, reported in iotval of its faults.
inline constexpr std::uint64_t kPageRequestMessageCode = 0x04;

// ---- Registers ------------------------------------------------------------------------------

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
inline constexpr std::uint32_t kIcvec = 760;
inline constexpr std::uint32_t kFileBytes = 4096;
}  // namespace reg

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

/// Spec: §6.28 "Interrupt-cause-to-vector register (icvec)".
struct Icvec {
  using Civ = Field<3, 0>;
  using Fiv = Field<7, 4>;
  using Pmiv = Field<11, 8>;
  using Piv = Field<15, 12>;
};

// ---- Directories ----------------------------------------------------------------------------

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

/// Encodings of iosatp.MODE and PC.fsc.MODE with SXL = 0. Spec: §3.1.3.4 "First-Stage context
/// (fsc)".
enum class FirstStageMode : std::uint8_t { kBare = 0, kSv39 = 8, kSv48 = 9, kSv57 = 10 };

/// Encodings of iohgatp.MODE with GXL = 0. Spec: §3.1.3.2 "IO hypervisor guest address translation
/// and protection (iohgatp)".
enum class SecondStageMode : std::uint8_t { kBare = 0, kSv39x4 = 8, kSv48x4 = 9, kSv57x4 = 10 };

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

// ---- Page tables ------------------------------------------------------------------------------

/// A page-table entry of either stage.
///
/// Spec: RISC-V Privileged specification, "Sv39: Page-Based 39-bit Virtual-Memory System",
///       "Svnapot", "Svpbmt", "Svrsw60t59b".
struct Pte {
  using V = Field<0>;
  using R = Field<1>;
  using W = Field<2>;
  using X = Field<3>;
  using U = Field<4>;
  using G = Field<5>;
  using A = Field<6>;
  using D = Field<7>;
  using Rsw = Field<9, 8>;
  using Ppn = Field<53, 10>;
  using Reserved = Field<58, 54>;
  using Rsw60t59b = Field<60, 59>;  // reserved without Svrsw60t59b
  using Pbmt = Field<62, 61>;
  using N = Field<63>;
  static constexpr unsigned kIndexBits = 9;
  static constexpr unsigned kNapotBits = 4;  // the one defined size: 64 KiB
  static constexpr std::uint64_t kNapotPattern = 0b1000;

  /// A pointer to the next level's table.
  static constexpr std::uint64_t make_pointer(std::uint64_t ppn) {
    return V::make(1) | Ppn::make(ppn);
  }
};

/// Levels of page table that `mode` walks; 0 when it is Bare or reserved.
constexpr unsigned second_stage_levels(SecondStageMode mode) {
  switch (mode) {
    case SecondStageMode::kSv39x4:
      return 3;
    case SecondStageMode::kSv48x4:
      return 4;
    case SecondStageMode::kSv57x4:
      return 5;
    case SecondStageMode::kBare:
      break;
  }
  return 0;
}
constexpr unsigned first_stage_levels(FirstStageMode mode) {
  switch (mode) {
    case FirstStageMode::kSv39:
      return 3;
    case FirstStageMode::kSv48:
      return 4;
    case FirstStageMode::kSv57:
      return 5;
    case FirstStageMode::kBare:
      break;
  }
  return 0;
}

// ---- Commands -------------------------------------------------------------------------------

/// One entry of the command queue. Spec: §4.1 "Command-Queue (CQ)".
struct Command {
  std::array<std::uint64_t, 2> words{};

  using Opcode = Field<6, 0>;
  using Func3 = Field<9, 7>;

  enum class OpcodeValue : std::uint8_t { kIotinval = 1, kIofence = 2, kIodir = 3, kAts = 4 };

  static constexpr std::uint64_t head(OpcodeValue opcode, std::uint64_t func3) {
    return Opcode::make(static_cast<std::uint64_t>(opcode)) | Func3::make(func3);
  }
  friend constexpr bool operator==(const Command&, const Command&) = default;
};
static_assert(sizeof(Command) == 16);

/// Spec: §4.1.1 "IOMMU Page-Table cache invalidation commands".
struct Iotinval {
  static constexpr std::uint64_t kVma = 0;
  static constexpr std::uint64_t kGvma = 1;
  // First doubleword.
  using Av = Field<10>;
  using Pscid = Field<31, 12>;
  using Pscv = Field<32>;
  using Gv = Field<33>;
  using Nl = Field<34>;
  using Gscid = Field<59, 44>;
  static constexpr std::uint64_t kReserved0 =
      Field<11>::kMask | Field<43, 35>::kMask | Field<63, 60>::kMask;
  // Second doubleword.
  using S = Field<9>;
  using Addr = Field<61, 10>;  // ADDR[63:12]
  static constexpr std::uint64_t kReserved1 = Field<8, 0>::kMask | Field<63, 62>::kMask;
};

/// Spec: §4.1.2 "IOMMU Command-queue Fence commands".
struct Iofence {
  static constexpr std::uint64_t kC = 0;
  // First doubleword.
  using Av = Field<10>;
  using Wsi = Field<11>;
  using Pr = Field<12>;
  using Pw = Field<13>;
  using Data = Field<63, 32>;
  static constexpr std::uint64_t kReserved0 = Field<31, 14>::kMask;
  // Second doubleword.
  using Addr = Field<61, 0>;  // ADDR[63:2]
  static constexpr std::uint64_t kReserved1 = Field<63, 62>::kMask;
};

/// Spec: §4.1.3 "IOMMU directory cache invalidation commands".
struct Iodir {
  static constexpr std::uint64_t kInvalDdt = 0;
  static constexpr std::uint64_t kInvalPdt = 1;
  // First doubleword; the second is reserved.
  using Pid = Field<31, 12>;
  using Dv = Field<33>;
  using Did = Field<63, 40>;
  static constexpr std::uint64_t kReserved0 =
      Field<11, 10>::kMask | Field<32>::kMask | Field<39, 34>::kMask;
};

/// Spec: §4.1.4 "IOMMU PCIe ATS commands".
struct Ats {
  static constexpr std::uint64_t kInval = 0;
  static constexpr std::uint64_t kPrgr = 1;
  // First doubleword.
  using Pid = Field<31, 12>;
  using Pv = Field<32>;
  using Dsv = Field<33>;
  using Rid = Field<55, 40>;
  using Dseg = Field<63, 56>;
  static constexpr std::uint64_t kReserved0 = Field<11, 10>::kMask | Field<39, 34>::kMask;

  /// PAYLOAD of ATS.INVAL. With S set the lowest clear address bit gives the size, as in PCIe.
  struct InvalPayload {
    using G = Field<0>;
    using S = Field<11>;
    using Address = Field<63, 12>;
    static constexpr std::uint64_t kReserved = Field<10, 1>::kMask;
  };
  /// PAYLOAD of ATS.PRGR.
  struct PrgrPayload {
    using Prgi = Field<40, 32>;
    using ResponseCode = Field<47, 44>;
    static constexpr std::uint64_t kReserved =
        Field<31, 0>::kMask | Field<43, 41>::kMask | Field<63, 48>::kMask;
  };
};

/// IOTINVAL.VMA; no `address`: every address, no `pscid`: every address space and global mappings.
/// Without `gscid` of the host, else of that guest.
constexpr Command iotinval_vma(std::optional<std::uint64_t> address,
                               std::optional<std::uint32_t> pscid,
                               std::optional<std::uint32_t> gscid = std::nullopt) {
  Command command;
  command.words[0] = Command::head(Command::OpcodeValue::kIotinval, Iotinval::kVma);
  if (pscid) command.words[0] |= Iotinval::Pscv::make(1) | Iotinval::Pscid::make(*pscid);
  if (gscid) command.words[0] |= Iotinval::Gv::make(1) | Iotinval::Gscid::make(*gscid);
  if (address) {
    command.words[0] |= Iotinval::Av::make(1);
    command.words[1] = Iotinval::Addr::make(*address >> kPageShift);
  }
  return command;
}

/// IOTINVAL.GVMA, of every address of a guest, or of all guests.
constexpr Command iotinval_gvma(std::optional<std::uint32_t> gscid) {
  Command command;
  command.words[0] = Command::head(Command::OpcodeValue::kIotinval, Iotinval::kGvma);
  if (gscid) command.words[0] |= Iotinval::Gv::make(1) | Iotinval::Gscid::make(*gscid);
  return command;
}

/// IODIR.INVAL_DDT; without `device_id`: everything cached from the directories.
constexpr Command iodir_inval_ddt(std::optional<std::uint32_t> device_id) {
  Command command;
  command.words[0] = Command::head(Command::OpcodeValue::kIodir, Iodir::kInvalDdt);
  if (device_id) command.words[0] |= Iodir::Dv::make(1) | Iodir::Did::make(*device_id);
  return command;
}

constexpr Command iodir_inval_pdt(std::uint32_t device_id, std::uint32_t process_id) {
  Command command;
  command.words[0] = Command::head(Command::OpcodeValue::kIodir, Iodir::kInvalPdt) |
                     Iodir::Dv::make(1) | Iodir::Did::make(device_id) |
                     Iodir::Pid::make(process_id);
  return command;
}

/// What an IOFENCE.C does besides waiting for the commands before it. Set both orders before
/// memory that the device could reach is reclaimed.
struct FenceOptions {
  bool order_reads = false;                             // PR
  bool order_writes = false;                            // PW
  bool interrupt = false;                               // WSI
  std::optional<std::uint64_t> address = std::nullopt;  // AV: where to store `data`, 4-byte aligned
  std::uint32_t data = 0;
};

constexpr Command iofence_c(const FenceOptions& options) {
  Command command;
  command.words[0] = Command::head(Command::OpcodeValue::kIofence, Iofence::kC) |
                     Iofence::Pr::make(options.order_reads) |
                     Iofence::Pw::make(options.order_writes) |
                     Iofence::Wsi::make(options.interrupt);
  if (options.address) {
    command.words[0] |= Iofence::Av::make(1) | Iofence::Data::make(options.data);
    command.words[1] = Iofence::Addr::make(*options.address >> 2);
  }
  return command;
}

namespace detail {
constexpr std::uint64_t ats_destination(std::uint32_t device_id,
                                        std::optional<std::uint32_t> pasid) {
  return Ats::Rid::make(device_id) | Ats::Dseg::make(device_id >> 16) | Ats::Dsv::make(1) |
         (pasid ? Ats::Pv::make(1) | Ats::Pid::make(*pasid) : 0);
}
}  // namespace detail

/// The range part of an ATS.INVAL payload: `size_bytes` a power of two ≥ 4096, or 0 for 2^64;
/// `address` aligned to it.
constexpr std::uint64_t encode_ats_range(std::uint64_t address, std::uint64_t size_bytes) {
  if (size_bytes == kPageBytes) return address & Ats::InvalPayload::Address::kMask;
  const std::uint64_t low_ones = size_bytes / 2 - 1;  // 2^64 (0): the whole word, see below
  const std::uint64_t ones = size_bytes == 0 ? ~std::uint64_t{0} >> 1 : low_ones;
  return Ats::InvalPayload::S::make(1) |
         (((address & ~(ones * 2 + 1)) | ones) & Ats::InvalPayload::Address::kMask);
}

/// ATS.INVAL to a device: the range of `size_bytes` (0: 2^64) at `address`, of `pasid` or, without
/// one, of requests without PASID. `global`: of all PASIDs.
constexpr Command ats_inval(std::uint32_t device_id, std::optional<std::uint32_t> pasid,
                            std::uint64_t address, std::uint64_t size_bytes, bool global = false) {
  Command command;
  command.words[0] = Command::head(Command::OpcodeValue::kAts, Ats::kInval) |
                     detail::ats_destination(device_id, pasid);
  command.words[1] = encode_ats_range(address, size_bytes) | Ats::InvalPayload::G::make(global);
  return command;
}

/// ATS.PRGR: answers page request group `group`; `response_code` as PCIe numbers it.
constexpr Command ats_prgr(std::uint32_t device_id, std::optional<std::uint32_t> pasid,
                           std::uint16_t group, std::uint8_t response_code) {
  Command command;
  command.words[0] = Command::head(Command::OpcodeValue::kAts, Ats::kPrgr) |
                     detail::ats_destination(device_id, pasid);
  command.words[1] =
      Ats::PrgrPayload::Prgi::make(group) | Ats::PrgrPayload::ResponseCode::make(response_code);
  return command;
}

// ---- Records --------------------------------------------------------------------------------

/// One entry of the fault queue. Spec: §4.2 "Fault/Event-Queue (FQ)".
struct FaultRecord {
  std::uint64_t head = 0;
  std::uint64_t custom = 0;
  std::uint64_t iotval = 0;
  std::uint64_t iotval2 = 0;

  using CauseBits = Field<11, 0>;
  using Pid = Field<31, 12>;
  using Pv = Field<32>;
  using Priv = Field<33>;
  using Ttyp = Field<39, 34>;
  using Did = Field<63, 40>;

  Cause cause() const { return static_cast<Cause>(CauseBits::get(head)); }
  TransactionType type() const { return static_cast<TransactionType>(Ttyp::get(head)); }
  std::uint32_t device_id() const { return static_cast<std::uint32_t>(Did::get(head)); }
  std::optional<std::uint32_t> process_id() const {
    if (Pv::get(head) == 0) return std::nullopt;
    return static_cast<std::uint32_t>(Pid::get(head));
  }
  bool privileged() const { return Priv::get(head) != 0; }
};
static_assert(sizeof(FaultRecord) == 32);

/// One entry of the page-request queue. Spec: §4.3 "Page-Request-Queue (PQ)".
struct PageRequestRecord {
  std::uint64_t head = 0;
  std::uint64_t payload = 0;

  using Pid = Field<31, 12>;
  using Pv = Field<32>;
  using Priv = Field<33>;
  using Exec = Field<34>;
  using Did = Field<63, 40>;

  struct Payload {
    using R = Field<0>;
    using W = Field<1>;
    using L = Field<2>;
    using Prgi = Field<11, 3>;
    using Address = Field<63, 12>;
  };

  std::uint32_t device_id() const { return static_cast<std::uint32_t>(Did::get(head)); }
  std::optional<std::uint32_t> process_id() const {
    if (Pv::get(head) == 0) return std::nullopt;
    return static_cast<std::uint32_t>(Pid::get(head));
  }
  bool privileged() const { return Priv::get(head) != 0; }
  bool execute() const { return Exec::get(head) != 0; }
  bool read() const { return Payload::R::get(payload) != 0; }
  bool write() const { return Payload::W::get(payload) != 0; }
  bool last() const { return Payload::L::get(payload) != 0; }
  std::uint16_t group() const { return static_cast<std::uint16_t>(Payload::Prgi::get(payload)); }
  std::uint64_t address() const { return payload & Payload::Address::kMask; }
};
static_assert(sizeof(PageRequestRecord) == 16);

}  // namespace tandem::iommu
