// SPDX-License-Identifier: Apache-2.0
/// Objects of every shape that call() and free() take. For tests; not installed.
#pragma once

#include <atomic>

#include "tandem/rcu/callback_head.hpp"

namespace tandem::rcu::detail {

/// How many of them were.
inline std::atomic<int> destroyed{0};

struct Plain {
  ~Plain() { ++destroyed; }
  long payload = 0;
};
struct WithBase : callback_head {
  ~WithBase() { ++destroyed; }
  long payload = 0;
};
struct WithMember {
  ~WithMember() { ++destroyed; }
  long payload = 7;
  callback_head rcu;
};

}  // namespace tandem::rcu::detail
