// SPDX-License-Identifier: Apache-2.0
/// The part of a file for one flavor of liburcu that is the same in all; included after the
/// flavor's header, which gives rcu_read_lock() and the like their meaning.
#pragma once

#include "bench/rcu_measure.hpp"

namespace tandem::bench {
namespace {

class UrcuThread {
 public:
  using Head = rcu_head;

  UrcuThread() { rcu_register_thread(); }
  ~UrcuThread() { rcu_unregister_thread(); }
  UrcuThread(const UrcuThread&) = delete;
  UrcuThread& operator=(const UrcuThread&) = delete;

  void lock() { rcu_read_lock(); }
  void unlock() {
    rcu_read_unlock();
#ifdef TANDEM_BENCH_QSBR
    rcu_quiescent_state();
#endif
  }
  void synchronize() { synchronize_rcu(); }
  void call(Head& head, void (*function)(Head*)) { call_rcu(&head, function); }
  void drain() { rcu_barrier(); }
  static void prepare() { (void)get_default_call_rcu_data(); }
};

[[maybe_unused]] RcuImplementation urcu_flavor(const char* name) {
  return {.name = name,
          .section_ns = section_ns<UrcuThread>,
          .synchronize_ns = synchronize_ns<UrcuThread>,
          .synchronize_rate = synchronize_rate<UrcuThread>,
          .enqueue_ns = enqueue_ns<UrcuThread>,
          .callback_us = callback_us<UrcuThread>,
          .flood_rate = flood_rate<UrcuThread>};
}

}  // namespace
}  // namespace tandem::bench
