// SPDX-License-Identifier: Apache-2.0
/// What the IOMMU reports: causes, transaction types, records of faults and page requests.
///
/// Spec: RISC-V IOMMU, version 20260222; section numbers are that text's.
#pragma once

#include <cstdint>
#include <optional>

#include "tandem/base/field.hpp"

namespace tandem::iommu {

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
  /// Not a request, but the last message about a PASID that the device stops using. Spec: §3.7.
  bool is_stop_marker() const { return last() && !read() && !write(); }
};
static_assert(sizeof(PageRequestRecord) == 16);

}  // namespace tandem::iommu
