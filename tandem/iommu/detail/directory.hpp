// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "tandem/base/result.hpp"
#include "tandem/iommu/spec.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::iommu::detail {

/// Levels of directory that `ddtp` names; 0 when its mode is Off or Bare.
unsigned ddt_levels(std::uint64_t ddtp);

/// Whether a directory of `levels` levels can hold `device_id`.
bool device_id_fits(unsigned levels, std::uint32_t device_id);

/// Whether a process directory in `mode` can hold `process_id`.
bool process_id_fits(PdtpMode mode, std::uint32_t process_id);

/// Whether a valid context passes the checks.
///
/// Spec: §3.1.4 "Device-context configuration checks".
bool well_formed(const DeviceContext& context);

/// Spec: §3.2.4 "Process-context configuration checks".
bool well_formed(const ProcessContext& context);

/// Reads and checks the device context of `device_id`, which fits.
///
/// Errors: kDdtLoadFault, kDdtNotValid, kDdtMisconfigured.
/// Spec:   §3.3.1 "Process to locate the Device-context".
Result<DeviceContext, Cause> load_device_context(const memory::Memory& memory, std::uint64_t ddtp,
                                                 std::uint32_t device_id);

/// Reads and checks the process context of `process_id`, which fits, in the directory `pdtp`, whose
/// mode is not Bare.
///
/// Errors: kPdtLoadFault, kPdtNotValid, kPdtMisconfigured.
/// Spec:   §3.3.2 "Process to locate the Process-context".
Result<ProcessContext, Cause> load_process_context(const memory::Memory& memory, std::uint64_t pdtp,
                                                   std::uint32_t process_id);

}  // namespace tandem::iommu::detail
