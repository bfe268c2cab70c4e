// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/asymmetric_fence.hpp"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tandem/base/check.hpp"
#include "tandem/base/features.hpp"

namespace tandem {
namespace {

bool membarrier(int command) noexcept { return ::syscall(SYS_membarrier, command, 0, 0) == 0; }

}  // namespace

bool register_global_fence() noexcept {
  static const bool registered =
      feature_allowed(Feature::kMembarrier) && membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
  return registered;
}

bool register_process_fence() noexcept {
  static const bool registered = feature_allowed(Feature::kMembarrier) &&
                                 membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
  return registered;
}

void heavy_fence_global() noexcept { TANDEM_CHECK(membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)); }

void heavy_fence_process() noexcept { TANDEM_CHECK(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)); }

}  // namespace tandem
