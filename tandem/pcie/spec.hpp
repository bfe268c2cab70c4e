// SPDX-License-Identifier: Apache-2.0
/// The configuration space of a function: where its registers lie, and their fields.
///
/// Spec: PCI Express Base Specification, revision 6.0: "PCI-Compatible Configuration Registers",
///       "MSI Capability Structures", "PCI Express Capability Structure", "PASID Extended
///       Capability Structure", "ATS Extended Capability", "Page Request Extended Capability
///       Structure".
#pragma once

#include <cstdint>

#include "tandem/base/field.hpp"

namespace tandem::pcie::config {

inline constexpr std::uint32_t kBytes = 4096;

// ---- the common header and that of type 0 (endpoints)
inline constexpr std::uint32_t kVendorId = 0x00;
inline constexpr std::uint32_t kDeviceId = 0x02;
inline constexpr std::uint32_t kCommand = 0x04;
inline constexpr std::uint32_t kStatus = 0x06;
inline constexpr std::uint32_t kRevisionId = 0x08;
inline constexpr std::uint32_t kClassCode = 0x09;  // three bytes
inline constexpr std::uint32_t kCacheLineSize = 0x0c;
inline constexpr std::uint32_t kHeaderType = 0x0e;
inline constexpr std::uint32_t kBar0 = 0x10;
inline constexpr unsigned kBars = 6;
inline constexpr std::uint32_t kSubsystemVendorId = 0x2c;
inline constexpr std::uint32_t kSubsystemId = 0x2e;
inline constexpr std::uint32_t kCapabilitiesPointer = 0x34;
inline constexpr std::uint32_t kInterruptLine = 0x3c;

inline constexpr std::uint16_t kNoVendor = 0xffff;
/// What a read of a function that is not there gives.
constexpr std::uint32_t nobody(unsigned size_bytes) {
  return size_bytes >= 4 ? ~std::uint32_t{0} : (std::uint32_t{1} << (8 * size_bytes)) - 1;
}

struct Command {
  using MemorySpaceEnable = Field<1>;
  using BusMasterEnable = Field<2>;
  using ParityErrorResponse = Field<6>;
  using SerrEnable = Field<8>;
  using InterruptDisable = Field<10>;
};

struct Status {
  using CapabilitiesList = Field<4>;
  /// RW1C: errors detected and signalled.
  static constexpr std::uint64_t kErrors = Field<8>::kMask | Field<15, 11>::kMask;
};

struct HeaderType {
  using MultiFunction = Field<7>;
};

/// A base address register of memory, the lower half.
struct BaseAddress {
  using Type = Field<2, 1>;
  static constexpr std::uint64_t k32Bit = 0;
  static constexpr std::uint64_t k64Bit = 2;
  using Prefetchable = Field<3>;
  static constexpr std::uint64_t kFlags = Field<3, 0>::kMask;
};

// ---- the PCI Express capability
inline constexpr std::uint8_t kPcieCapabilityId = 0x10;
inline constexpr std::uint32_t kPcieCapabilities = 0x02;  // offsets from the capability on
inline constexpr std::uint32_t kDeviceCapabilities = 0x04;
inline constexpr std::uint32_t kDeviceControl = 0x08;
inline constexpr std::uint32_t kDeviceStatus = 0x0a;
inline constexpr std::uint32_t kDeviceCapabilities2 = 0x24;
inline constexpr std::uint32_t kPcieCapabilityBytes = 0x3c;

struct PcieCapabilities {
  using Version = Field<3, 0>;
  using PortType = Field<7, 4>;
  static constexpr std::uint64_t kIntegratedEndpoint = 9;
};

struct DeviceCapabilities {
  using RoleBasedErrorReporting = Field<15>;
  using FunctionLevelReset = Field<28>;
};

struct DeviceControl {
  using ErrorReporting = Field<3, 0>;
  using RelaxedOrdering = Field<4>;
  using MaxPayloadSize = Field<7, 5>;
  using NoSnoop = Field<11>;
  using MaxReadRequestSize = Field<14, 12>;
  using InitiateFlr = Field<15>;
};

struct DeviceStatus {
  static constexpr std::uint64_t kErrors = Field<3, 0>::kMask;  // RW1C
  using TransactionsPending = Field<5>;
};

struct DeviceCapabilities2 {
  using EndEndTlpPrefix = Field<21>;
  using MaxEndEndTlpPrefixes = Field<23, 22>;
};

// ---- the MSI capability, of addresses of 64 bits and with a mask
inline constexpr std::uint8_t kMsiCapabilityId = 0x05;
inline constexpr std::uint32_t kMsiControl = 0x02;
inline constexpr std::uint32_t kMsiAddress = 0x04;
inline constexpr std::uint32_t kMsiUpperAddress = 0x08;
inline constexpr std::uint32_t kMsiData = 0x0c;
inline constexpr std::uint32_t kMsiMask = 0x10;
inline constexpr std::uint32_t kMsiPending = 0x14;
inline constexpr std::uint32_t kMsiCapabilityBytes = 0x18;
inline constexpr unsigned kMsiVectors = 32;

struct MsiControl {
  using Enable = Field<0>;
  using MultipleMessageCapable = Field<3, 1>;  // log2 of the number
  using MultipleMessageEnable = Field<6, 4>;   // likewise
  using Addresses64Bit = Field<7>;
  using PerVectorMasking = Field<8>;
};

// ---- extended capabilities
inline constexpr std::uint32_t kExtendedCapabilities = 0x100;

struct ExtendedCapability {
  using Id = Field<15, 0>;
  using Version = Field<19, 16>;
  using Next = Field<31, 20>;
  static constexpr std::uint64_t kAts = 0x0f;
  static constexpr std::uint64_t kPageRequest = 0x13;
  static constexpr std::uint64_t kPasid = 0x1b;
};

// Offsets from the extended capability on.
inline constexpr std::uint32_t kPasidCapability = 0x04;
inline constexpr std::uint32_t kPasidControl = 0x06;
inline constexpr std::uint32_t kPasidBytes = 0x08;

struct PasidCapability {
  using Execute = Field<1>;
  using Privileged = Field<2>;
  using Width = Field<12, 8>;
};
struct PasidControl {
  using Enable = Field<0>;
  using Execute = Field<1>;
  using Privileged = Field<2>;
};

inline constexpr std::uint32_t kAtsCapability = 0x04;
inline constexpr std::uint32_t kAtsControl = 0x06;
inline constexpr std::uint32_t kAtsBytes = 0x08;

struct AtsCapability {
  using InvalidateQueueDepth = Field<4, 0>;  // 0 is 32
  using PageAlignedRequest = Field<5>;
  using GlobalInvalidate = Field<6>;
};
struct AtsControl {
  using SmallestTranslationUnit = Field<4, 0>;  // log2, in pages of 4 KiB
  using Enable = Field<15>;
};

inline constexpr std::uint32_t kPageRequestControl = 0x04;
inline constexpr std::uint32_t kPageRequestStatus = 0x06;
inline constexpr std::uint32_t kPageRequestCapacity = 0x08;
inline constexpr std::uint32_t kPageRequestAllocation = 0x0c;
inline constexpr std::uint32_t kPageRequestBytes = 0x10;

struct PageRequestControl {
  using Enable = Field<0>;
  using Reset = Field<1>;
};
struct PageRequestStatus {
  using ResponseFailure = Field<0>;       // RW1C
  using UnexpectedGroupIndex = Field<1>;  // RW1C
  using Stopped = Field<8>;
  using ResponsePasidRequired = Field<15>;
};

}  // namespace tandem::pcie::config
