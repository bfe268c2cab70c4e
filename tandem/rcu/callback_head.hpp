// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tandem::rcu {

/// What an object embeds to have a function called after a grace period without an allocation.
///
/// Belongs to the domain from call() until `run` is called, which may free it or hand it in again;
/// nothing may be assigned to it meanwhile. A copy is a head of its own.
///
/// Spec: Linux kernel documentation, "The Linux kernel core API: RCU", call_rcu() (rcu_head).
struct callback_head {
  callback_head* next = nullptr;
  void (*run)(callback_head*) noexcept = nullptr;
};

}  // namespace tandem::rcu
