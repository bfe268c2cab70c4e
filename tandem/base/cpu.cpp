// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/cpu.hpp"

#include <sched.h>

namespace tandem {

int usable_cpus() noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}

}  // namespace tandem
