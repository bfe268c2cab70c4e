// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/check.hpp"

#include <cstdio>
#include <cstdlib>

#include "tandem/base/result.hpp"

namespace tandem::detail {

void check_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "tandem: invariant broken: %s: %s:%d\n", expression, file, line);
  std::abort();
}

void no_value(const char* error) noexcept {
  std::fprintf(stderr, "tandem: an error that nobody looked at: %s\n", error);
  std::abort();
}

}  // namespace tandem::detail
