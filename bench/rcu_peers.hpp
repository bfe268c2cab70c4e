// SPDX-License-Identifier: Apache-2.0
/// Implementations of RCU side by side. Each is measured by the same templates (rcu_measure.hpp),
/// instantiated in a file of its own, since the flavors of liburcu do not fit into one.
#pragma once

#include <string>

namespace tandem::bench {

/// What a reader does while another thread waits for it.
enum class ReaderState {
  kIdle,     ///< registered, asleep outside sections
  kRunning,  ///< one section after the other, on another CPU
};

struct HashRates {
  double finds_per_second, updates_per_second;
};

/// The ways to measure one implementation; null where it has no such thing. Each starts its threads
/// and joins them.
struct RcuImplementation {
  std::string name;  ///< with its version
  /// Nanoseconds for one section of nothing, on each of `threads` CPUs at once.
  double (*section_ns)(int threads, long rounds) = nullptr;
  /// Nanoseconds to wait for a grace period.
  double (*synchronize_ns)(ReaderState reader, long rounds) = nullptr;
  /// Grace periods a second that `callers` threads get, each of them waiting for one at a time.
  double (*synchronize_rate)(int callers, int milliseconds) = nullptr;
  /// Nanoseconds to hand a callback in, of objects made just before: the median of `bursts` times
  /// `burst` of them, one burst each half millisecond.
  double (*enqueue_ns)(int burst, int bursts) = nullptr;
  /// Microseconds from handing one callback in until it runs; loaded: while another thread hands
  /// in two million a second.
  double (*callback_us)(bool loaded) = nullptr;
  /// Objects a second from malloc() through a callback to free(), for `milliseconds`, flat out.
  /// grown_mib: by how much the process grew at most.
  double (*flood_rate)(int milliseconds, double& grown_mib) = nullptr;
  /// 4096 buckets, 16384 keys, a thread that looks up and one that replaces, flat out.
  HashRates (*hash_rates)(int milliseconds) = nullptr;
};

RcuImplementation tandem_rcu();
/// Sections as a quiescent_reader, of which each ends in a quiescent state.
RcuImplementation tandem_quiescent();
/// Sections that make their own fence, in a domain without others.
RcuImplementation tandem_fenced();
RcuImplementation urcu_memb();         ///< with _LGPL_SOURCE: inlined
RcuImplementation urcu_memb_linked();  ///< without, as it is by default
RcuImplementation urcu_bp();
RcuImplementation urcu_mb();
RcuImplementation urcu_qsbr();
RcuImplementation ck_epochs();       ///< with section objects, and polled: as programs use it
RcuImplementation ck_epochs_bare();  ///< without
RcuImplementation libcds_gpb();
RcuImplementation shared_mutex();

}  // namespace tandem::bench
