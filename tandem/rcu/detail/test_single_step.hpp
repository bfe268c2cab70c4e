// SPDX-License-Identifier: Apache-2.0
/// A signal after each instruction, by the processor's trap flag. For tests; not installed.
#pragma once

#include <csignal>
#include <functional>

#include "tandem/base/check.hpp"
#include "tandem/base/test_suspension.hpp"
#include "tandem/rcu/detail/reader.hpp"

namespace tandem::rcu::detail {

inline void (*step_handler)() = nullptr;
inline volatile long steps = 0;

inline void on_step(int) {
  steps = steps + 1;
  step_handler();
}

/// Has `handler` called, as a signal handler, after each instruction of `operation`, which must not
/// block SIGTRAP, nor be in a restartable sequence: that would start again for ever.
/// Returns: how often; 0 where signals do not come so.
inline long step_through(void (*handler)(), const std::function<void()>& operation) {
  if (kInstrumented) return 0;  // ThreadSanitizer puts signals off
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = on_step;
  TANDEM_CHECK(::sigaction(SIGTRAP, &action, &before) == 0);
  step_handler = handler;
  steps = 0;
  set_trap_flag(true);
  operation();
  set_trap_flag(false);
  TANDEM_CHECK(::sigaction(SIGTRAP, &before, nullptr) == 0);
  return steps;
}

}  // namespace tandem::rcu::detail
