// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tandem::rcu {

/// What an object embeds to have a function called after a grace period without an allocation.
///
/// Belongs to the domain from call() until `run` is called, which may free it or hand it in again.
///
/// Spec: Linux kernel documentation, "The Linux kernel core API: RCU", call_rcu() (rcu_head).
struct callback_head {
  callback_head* next = nullptr;
  void (*run)(callback_head*) noexcept = nullptr;

  callback_head() = default;
  // Copying the object around it copies nothing: the links belong to the domain.
  callback_head(const callback_head&) noexcept {}
  callback_head& operator=(const callback_head&) noexcept { return *this; }
  ~callback_head() = default;
};

}  // namespace tandem::rcu
