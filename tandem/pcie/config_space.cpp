// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/config_space.hpp"

#include <algorithm>

namespace tandem::pcie::detail {
namespace {

using config::AtsCapability;
using config::AtsControl;
using config::Command;
using config::DeviceControl;
using config::PageRequestControl;
using config::PageRequestStatus;
using config::PasidCapability;
using config::PasidControl;

constexpr std::uint64_t kAllBits = ~std::uint64_t{0};

std::uint32_t low(std::uint64_t value) { return static_cast<std::uint32_t>(value); }

}  // namespace

ConfigSpace::ConfigSpace(const Endpoint::Options& options) {
  define_header(options);
  define_pcie(options);
  if (options.msi_vectors != 0) define_msi(options.msi_vectors);
  define_extended(options);
  if (options.enabled) enable_all(options);
}

/// Spec: "PCI-Compatible Configuration Registers", "Type 0 Configuration Space Header".
void ConfigSpace::define_header(const Endpoint::Options& options) {
  const Identity& identity = options.identity;
  file_.define(config::kVendorId, 2, identity.vendor_id);
  file_.define(config::kDeviceId, 2, identity.device_id);
  file_.define(config::kCommand, 2, 0,
               Command::MemorySpaceEnable::kMask | Command::BusMasterEnable::kMask |
                   Command::ParityErrorResponse::kMask | Command::SerrEnable::kMask |
                   Command::InterruptDisable::kMask);
  file_.define(config::kStatus, 2, config::Status::CapabilitiesList::kMask, 0,
               config::Status::kErrors);
  file_.define(config::kRevisionId, 1, identity.revision);
  file_.define(config::kClassCode, 3, identity.class_code);
  file_.define(config::kCacheLineSize, 1, 0, kAllBits);
  file_.define(config::kHeaderType, 1,
               config::HeaderType::MultiFunction::make(identity.multi_function ? 1 : 0));
  file_.define(config::kSubsystemVendorId, 2, identity.subsystem_vendor_id);
  file_.define(config::kSubsystemId, 2, identity.subsystem_id);
  file_.define(config::kCapabilitiesPointer, 1, kPcie);
  file_.define(config::kInterruptLine, 1, 0, kAllBits);

  std::uint32_t offset = config::kBar0;
  for (const Bar& bar : options.bars) {
    // Software finds the size by writing ones: the bits below it cannot be written.
    const std::uint64_t flags =
        config::BaseAddress::Type::make(bar.is_64_bit ? config::BaseAddress::k64Bit
                                                      : config::BaseAddress::k32Bit) |
        config::BaseAddress::Prefetchable::make(bar.prefetchable ? 1 : 0);
    file_.define(offset, bar.is_64_bit ? 8 : 4, flags, ~(bar.size_bytes - 1));
    bar_offsets_.push_back(offset);
    bar_is_wide_.push_back(bar.is_64_bit);
    offset += bar.is_64_bit ? 8 : 4;
  }
}

/// Spec: "PCI Express Capability Structure". An integrated endpoint has no link.
void ConfigSpace::define_pcie(const Endpoint::Options& options) {
  constexpr std::uint64_t k512Bytes = 2;  // the default of Max_Read_Request_Size
  file_.define(kPcie, 1, config::kPcieCapabilityId);
  file_.define(kPcie + 1, 1, options.msi_vectors != 0 ? kMsi : 0);
  file_.define(
      kPcie + config::kPcieCapabilities, 2,
      config::PcieCapabilities::Version::make(2) |
          config::PcieCapabilities::PortType::make(config::PcieCapabilities::kIntegratedEndpoint));
  file_.define(kPcie + config::kDeviceCapabilities, 4,
               config::DeviceCapabilities::RoleBasedErrorReporting::kMask |
                   config::DeviceCapabilities::FunctionLevelReset::kMask);
  file_.define(kPcie + config::kDeviceControl, 2,
               DeviceControl::RelaxedOrdering::kMask | DeviceControl::NoSnoop::kMask |
                   DeviceControl::MaxReadRequestSize::make(k512Bytes),
               DeviceControl::ErrorReporting::kMask | DeviceControl::RelaxedOrdering::kMask |
                   DeviceControl::MaxPayloadSize::kMask | DeviceControl::NoSnoop::kMask |
                   DeviceControl::MaxReadRequestSize::kMask);
  file_.define(kPcie + config::kDeviceStatus, 2, 0, 0, config::DeviceStatus::kErrors);
  if (options.pasid) {
    file_.define(kPcie + config::kDeviceCapabilities2, 4,
                 config::DeviceCapabilities2::EndEndTlpPrefix::kMask |
                     config::DeviceCapabilities2::MaxEndEndTlpPrefixes::make(1));
  }
}

/// Spec: "PASID Extended Capability Structure", "ATS Extended Capability", "Page Request Extended
/// Capability Structure".
void ConfigSpace::define_extended(const Endpoint::Options& options) {
  std::uint32_t end = config::kExtendedCapabilities;
  std::uint32_t last = 0;
  const auto add = [&](std::uint64_t id, std::uint32_t size_bytes) {
    using config::ExtendedCapability;
    const std::uint32_t at = end;
    file_.define(at, 4, ExtendedCapability::Id::make(id) | ExtendedCapability::Version::make(1));
    if (last != 0) {
      file_.define(last, 4, file_.read(last, 4) | ExtendedCapability::Next::make(at));
    }
    last = at;
    end += size_bytes;
    return at;
  };
  if (options.pasid) {
    pasid_ = add(config::ExtendedCapability::kPasid, config::kPasidBytes);
    const std::uint64_t execute = options.execute ? 1 : 0;
    const std::uint64_t privileged = options.privileged ? 1 : 0;
    file_.define(pasid_ + config::kPasidCapability, 2,
                 PasidCapability::Execute::make(execute) |
                     PasidCapability::Privileged::make(privileged) |
                     PasidCapability::Width::make(options.pasid_bits));
    file_.define(pasid_ + config::kPasidControl, 2, 0,
                 PasidControl::Enable::kMask | PasidControl::Execute::make(execute) |
                     PasidControl::Privileged::make(privileged));
  }
  if (options.ats) {
    ats_ = add(config::ExtendedCapability::kAts, config::kAtsBytes);
    file_.define(ats_ + config::kAtsCapability, 2,
                 AtsCapability::PageAlignedRequest::kMask | AtsCapability::GlobalInvalidate::kMask);
    file_.define(ats_ + config::kAtsControl, 2, 0,
                 AtsControl::SmallestTranslationUnit::kMask | AtsControl::Enable::kMask);
  }
  if (options.pri) {
    page_request_ = add(config::ExtendedCapability::kPageRequest, config::kPageRequestBytes);
    file_.define(page_request_ + config::kPageRequestControl, 2, 0,
                 PageRequestControl::Enable::kMask);
    file_.define(
        page_request_ + config::kPageRequestStatus, 2,
        PageRequestStatus::ResponsePasidRequired::make(options.pasid ? 1 : 0), 0,
        PageRequestStatus::ResponseFailure::kMask | PageRequestStatus::UnexpectedGroupIndex::kMask);
    file_.define(page_request_ + config::kPageRequestCapacity, 4, options.page_request_capacity);
    file_.define(page_request_ + config::kPageRequestAllocation, 4, 0, kAllBits);
  }
}

void ConfigSpace::enable_all(const Endpoint::Options& options) {
  file_.set(config::kCommand, 2,
            Command::BusMasterEnable::kMask | Command::MemorySpaceEnable::kMask);
  if (pasid_ != 0) {
    file_.set(pasid_ + config::kPasidControl, 2,
              low(PasidControl::Enable::kMask | PasidControl::Execute::make(options.execute) |
                  PasidControl::Privileged::make(options.privileged)));
  }
  if (ats_ != 0) file_.set(ats_ + config::kAtsControl, 2, AtsControl::Enable::kMask);
  if (page_request_ != 0) {
    file_.set(page_request_ + config::kPageRequestAllocation, 4, options.page_request_capacity);
    file_.set(page_request_ + config::kPageRequestControl, 2, PageRequestControl::Enable::kMask);
  }
}

/// Spec: "Function Level Reset (FLR)".
void ConfigSpace::reset() {
  constexpr std::uint32_t kControl = kPcie + config::kDeviceControl;
  const std::uint64_t payload = DeviceControl::MaxPayloadSize::get(file_.read(kControl, 2));
  file_.reset();
  ++resets_;
  file_.set(kControl, 2, low(DeviceControl::MaxPayloadSize::set(file_.read(kControl, 2), payload)));
}

std::uint32_t ConfigSpace::read(std::uint32_t offset, unsigned size_bytes, const Live& live) {
  const std::uint32_t status = kPcie + config::kDeviceStatus;
  file_.set(status, 2,
            low(config::DeviceStatus::TransactionsPending::set(file_.read(status, 2),
                                                               live.transactions_pending)));
  if (page_request_ != 0) {
    const std::uint32_t control = file_.read(page_request_ + config::kPageRequestControl, 2);
    const bool stopped =
        PageRequestControl::Enable::get(control) == 0 && !live.page_requests_outstanding;
    const std::uint32_t at = page_request_ + config::kPageRequestStatus;
    file_.set(at, 2, low(PageRequestStatus::Stopped::set(file_.read(at, 2), stopped)));
  }
  return file_.read(offset, size_bytes);
}

ConfigSpace::Request ConfigSpace::write(std::uint32_t offset, std::uint32_t value,
                                        unsigned size_bytes) {
  const std::uint64_t bits = value & ((std::uint64_t{1} << (8 * size_bytes)) - 1);
  const auto written = [&](std::uint32_t at, std::uint64_t mask) {
    // Whether this write sets one of the bits of `mask` of the register at `at`, which begins the
    // four bytes written to.
    return (bits << (offset - at) * 8 & mask) != 0;
  };
  Request request;
  const std::uint32_t control = kPcie + config::kDeviceControl;
  if (offset / 4 == control / 4) {
    request.function_level_reset = written(control, DeviceControl::InitiateFlr::kMask);
  }
  const std::uint32_t pasid = pasid_ == 0 ? 0 : file_.read(pasid_ + config::kPasidControl, 2);
  const std::uint32_t ats = ats_ == 0 ? 0 : file_.read(ats_ + config::kAtsControl, 2);
  file_.write(offset, value, size_bytes);
  keep_while_ats_is_enabled(pasid, ats);
  if (page_request_ != 0 && offset / 4 == (page_request_ + config::kPageRequestControl) / 4) {
    const std::uint32_t at = page_request_ + config::kPageRequestControl;
    request.page_request_reset = written(at, PageRequestControl::Reset::kMask) &&
                                 PageRequestControl::Enable::get(file_.read(at, 2)) == 0;
  }
  return request;
}

/// What the specification leaves undefined, a change of PASID Control or of the smallest
/// translation unit while ATS is enabled, does nothing here.
void ConfigSpace::keep_while_ats_is_enabled(std::uint32_t before_pasid, std::uint32_t before_ats) {
  if (ats_ == 0 || AtsControl::Enable::get(before_ats) == 0) return;
  const std::uint32_t ats = file_.read(ats_ + config::kAtsControl, 2);
  if (AtsControl::Enable::get(ats) == 0) return;
  file_.set(ats_ + config::kAtsControl, 2, before_ats);
  if (pasid_ != 0) file_.set(pasid_ + config::kPasidControl, 2, before_pasid);
}

bool ConfigSpace::bus_master_enabled() const {
  return Command::BusMasterEnable::get(file_.read(config::kCommand, 2)) != 0;
}

unsigned ConfigSpace::permissions() const {
  unsigned bits = 0;
  const auto add_if = [&](bool enabled, unsigned bit) { bits |= enabled ? bit : 0; };
  add_if(bus_master_enabled(), Controls::kBusMaster);
  if (pasid_ != 0) {
    const std::uint32_t control = file_.read(pasid_ + config::kPasidControl, 2);
    add_if(PasidControl::Enable::get(control) != 0, Controls::kPasid);
    add_if(PasidControl::Execute::get(control) != 0, Controls::kExecute);
    add_if(PasidControl::Privileged::get(control) != 0, Controls::kPrivileged);
  }
  if (ats_ != 0) {
    add_if(AtsControl::Enable::get(file_.read(ats_ + config::kAtsControl, 2)) != 0, Controls::kAts);
  }
  if (page_request_ != 0) {
    const std::uint32_t control = file_.read(page_request_ + config::kPageRequestControl, 2);
    add_if(PageRequestControl::Enable::get(control) != 0, Controls::kPageRequests);
  }
  return bits;
}

unsigned ConfigSpace::log2_smallest_translation_unit() const {
  if (ats_ == 0) return 12;
  return 12 + static_cast<unsigned>(AtsControl::SmallestTranslationUnit::get(
                  file_.read(ats_ + config::kAtsControl, 2)));
}

std::uint32_t ConfigSpace::page_request_allocation() const {
  if (page_request_ == 0) return 0;
  return std::min(file_.read(page_request_ + config::kPageRequestAllocation, 4),
                  file_.read(page_request_ + config::kPageRequestCapacity, 4));
}

std::optional<std::uint64_t> ConfigSpace::bar_address(std::size_t index) const {
  if (Command::MemorySpaceEnable::get(file_.read(config::kCommand, 2)) == 0) return std::nullopt;
  const std::uint32_t offset = bar_offsets_[index];
  std::uint64_t address = file_.read(offset, 4) & ~config::BaseAddress::kFlags;
  if (bar_is_wide_[index]) address |= std::uint64_t{file_.read(offset + 4, 4)} << 32;
  // 0: nobody has given it an address.
  return address == 0 ? std::nullopt : std::optional(address);
}

void ConfigSpace::set_page_request_status(std::uint64_t bits) {
  if (page_request_ == 0) return;
  const std::uint32_t at = page_request_ + config::kPageRequestStatus;
  file_.set(at, 2, low(file_.read(at, 2) | bits));
}

}  // namespace tandem::pcie::detail
