// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace tandem {

/// Whether the fault named `name` is planted in this process.
///
/// A build with TANDEM_PLANTED_FAULTS carries every named fault; TANDEM_PLANT=name switches one on.
/// tools/planted_faults runs, for each, the test that has to notice. Other builds carry none: the
/// function is a constant false and the branch disappears.
#ifdef TANDEM_PLANTED_FAULTS
bool planted_fault(std::string_view name) noexcept;
#else
constexpr bool planted_fault(std::string_view) noexcept { return false; }
#endif

}  // namespace tandem
