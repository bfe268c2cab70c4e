// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tandem::detail {
/// Reports a broken invariant on standard error and aborts.
[[noreturn]] void check_failed(const char* expression, const char* file, int line) noexcept;
}  // namespace tandem::detail

/// States an invariant of ours; stays on in release builds. Never for what a client can cause.
#define TANDEM_CHECK(expression) \
  ((expression) ? (void)0 : ::tandem::detail::check_failed(#expression, __FILE__, __LINE__))
