// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tandem/base/result.hpp"
#include "tandem/iommu/detail/config.hpp"
#include "tandem/iommu/detail/second_stage.hpp"
#include "tandem/iommu/spec.hpp"

namespace tandem::iommu::detail {

/// Levels of directory that `ddtp` names; 0 when its mode is Off or Bare.
unsigned ddt_levels(std::uint64_t ddtp);

/// Whether a directory of `levels` levels can hold `device_id`.
bool device_id_fits(const Config& config, unsigned levels, std::uint32_t device_id);

/// Whether some process directory that the capabilities offer can hold `process_id`.
bool process_id_exists(const Config& config, std::uint32_t process_id);

/// Whether a process directory in `mode` can hold `process_id`.
bool process_id_fits(PdtpMode mode, std::uint32_t process_id);

/// Whether a valid context passes the checks.
///
/// Spec: §3.1.4 "Device-context configuration checks".
bool well_formed(const Config& config, const ExtendedDeviceContext& context);

/// Spec: §3.2.4 "Process-context configuration checks".
bool well_formed(const Config& config, const DeviceContext& device, const ProcessContext& context);

/// Reads and checks the device context of `device_id`, which fits. In base format what it has not
/// reads as 0.
///
/// Errors: kDdtLoadFault, kDdtNotValid, kDdtMisconfigured.
/// Spec:   §3.3.1 "Process to locate the Device-context".
Result<ExtendedDeviceContext, Cause> load_device_context(TableReader& reader, const Config& config,
                                                         std::uint64_t ddtp,
                                                         std::uint32_t device_id);

/// Reads and checks the process context of `process_id`, which fits, in the directory of `device`,
/// whose mode is not Bare. `access` is the transaction's own, which guest-page faults name.
///
/// Errors: kPdtLoadFault, kPdtNotValid, kPdtMisconfigured, guest_page_fault(access).
/// Spec:   §3.3.2 "Process to locate the Process-context".
Result<ProcessContext, WalkFault> load_process_context(TableReader& reader, const Config& config,
                                                       const DeviceContext& device,
                                                       std::uint32_t process_id, Access access);

}  // namespace tandem::iommu::detail
