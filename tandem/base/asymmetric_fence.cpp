// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/asymmetric_fence.hpp"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>

#include "tandem/base/features.hpp"
#include "tandem/base/futex.hpp"

namespace tandem {
namespace {

bool membarrier(int command) noexcept { return ::syscall(SYS_membarrier, command, 0, 0) == 0; }

void outwait_store_buffers() noexcept {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::milliseconds(1);
  do {
    nap(std::chrono::milliseconds(1));  // may be refused as well
  } while (Clock::now() < until);
}

}  // namespace

bool register_process_fence() noexcept {
  static const bool registered = feature_allowed(Feature::kMembarrier) &&
                                 membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
  return registered;
}

bool heavy_fence_process() noexcept {
  if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)) return true;
  full_fence();
  outwait_store_buffers();
  return false;
}

}  // namespace tandem
