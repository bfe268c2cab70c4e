// SPDX-License-Identifier: Apache-2.0
/// Commands as software queues them, and functions that make the common ones.
///
/// Spec: RISC-V IOMMU, version 20260222; section numbers are that text's.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "tandem/base/field.hpp"
#include "tandem/iommu/spec_page_tables.hpp"

namespace tandem::iommu {

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

/// log2 of how many pages lie in the naturally aligned range that the page number `page` encodes in
/// its low bits: 2^(X+1), where X is the lowest bit that is 0.
///
/// Spec: §9.3 "Address Range Invalidation Extension"; PCIe, ATS invalidation requests.
constexpr unsigned napot_log2_pages(std::uint64_t page) {
  return static_cast<unsigned>(__builtin_ctzll(~page)) + 1;
}

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

}  // namespace tandem::iommu
