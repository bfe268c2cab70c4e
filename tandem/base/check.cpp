// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/check.hpp"

#include <cstdio>
#include <cstdlib>

namespace tandem::detail {

void check_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "tandem: invariant broken: %s: %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace tandem::detail
