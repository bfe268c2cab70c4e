// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::broker {

/// A private tandemd for demos, tests and benchmarks: a child process in a fresh directory that
/// only we may enter. TANDEM points this process, and those it starts, at it while it lives.
///
/// It does not outlive the thread that started it, and the terminal's signals do not reach it.
/// Thread safety: one thread, the one that started it. A forked child may use pid() and
/// socket_path() and must not destroy it.
class BrokerProcess {
 public:
  struct Options {
    int engines = 1;
    int cpu = -1;         ///< ≥ 0: it stays on that CPU
    bool events = false;  ///< it tells what happens to its clients; somebody has to take the events
  };
  /// What the broker said about a client; `tandemd --events-fd` as it comes through a pipe.
  struct Event {
    std::string kind;  ///< "connected", "refused", "ended"
    std::uint32_t client = 0, pasid = 0;
    pid_t pid = 0;
    std::string why;
    std::uint64_t queues = 0, reserved_bytes = 0, took_us = 0;
    bool quarantined = false;
    std::chrono::steady_clock::time_point seen;
  };

  /// Returns when clients can connect. Errors: what could not be had, or that it did not come up
  /// within 20 s; what it had to say about that is on standard error.
  static Result<std::unique_ptr<BrokerProcess>, std::string> start(Options options);
  /// Stops it, by force when it takes longer than 12 s, and removes the directory.
  ~BrokerProcess();
  BrokerProcess(const BrokerProcess&) = delete;
  BrokerProcess& operator=(const BrokerProcess&) = delete;

  const std::string& directory() const { return directory_; }
  std::string socket_path() const { return directory_ + "/broker.sock"; }
  pid_t pid() const { return pid_; }
  bool running();
  /// CPU seconds it has used since it started.
  double cpu_seconds() const;

  /// Takes what the broker has said meanwhile.
  const std::vector<Event>& events();
  /// The first event of `kind` about process `pid`, waiting for it; nullptr after `patience`.
  const Event* wait_for(const std::string& kind, pid_t pid, std::chrono::milliseconds patience);

 private:
  BrokerProcess() = default;
  std::string directory_;
  pid_t pid_ = -1;
  bool reaped_ = false;
  UniqueFd events_fd_;
  std::string partial_;
  std::vector<Event> events_;
};

/// The path of a program that belongs to the running one, e.g. "tandemd": beside it where they are
/// installed, else in the `apps` of the build tree it is in. What is nowhere is looked for beside.
std::string program_path(const std::string& name);

}  // namespace tandem::broker
