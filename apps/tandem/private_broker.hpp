// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "apps/tandem/cli.hpp"
#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::cli {

/// Runs this program again as `tandem NAME ARGUMENTS…`, not ready to outlive us. Descriptors listed
/// in `inherit` stay open in it under their numbers.
Result<pid_t, Failure> spawn_self(const std::vector<std::string>& arguments,
                                  const std::vector<int>& inherit);

/// A broker of our own: a child process, without privileges, in a fresh directory that only we may
/// enter. It tells what happens to its clients.
class PrivateBroker {
 public:
  /// What the broker said about a client; broker::Event as it comes through a pipe.
  struct Event {
    std::string kind;  ///< "connected", "refused", "ended"
    std::uint32_t client = 0, pasid = 0;
    pid_t pid = 0;
    std::string why;
    std::uint64_t queues = 0, reserved_bytes = 0, took_us = 0;
    bool quarantined = false;
    std::chrono::steady_clock::time_point seen;
  };

  static Result<std::unique_ptr<PrivateBroker>, Failure> start(int engine_threads);
  ~PrivateBroker();  ///< stops it and removes the directory

  const std::string& directory() const { return directory_; }
  std::string socket() const { return directory_ + "/broker.sock"; }
  pid_t pid() const { return pid_; }
  bool running();
  /// Makes wd of this process, and of those it starts, use it.
  void select() const;

  /// Takes what the broker has said meanwhile.
  const std::vector<Event>& events();
  /// The first event of `kind` about process `pid`, waiting for it; nullptr after `patience`.
  const Event* wait_for(const std::string& kind, pid_t pid, std::chrono::milliseconds patience);

 private:
  PrivateBroker() = default;
  std::string directory_;
  pid_t pid_ = -1;
  UniqueFd report_;
  std::string partial_;
  std::vector<Event> events_;
};

/// The child's side: serves at `socket`, reports to `report_fd`.
int run_private_broker(const std::string& socket, int engine_threads, int report_fd);

}  // namespace tandem::cli
