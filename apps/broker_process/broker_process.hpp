// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

namespace tandem::broker {

/// A private tandemd in a fresh directory; TANDEM points this process at it while it lives.
class BrokerProcess {
 public:
  /// Starts it with `engines` engine threads; `cpu` ≥ 0 keeps it on that CPU.
  /// Throws std::runtime_error when the broker does not come up.
  explicit BrokerProcess(int engines, int cpu = -1);
  ~BrokerProcess();
  BrokerProcess(const BrokerProcess&) = delete;
  BrokerProcess& operator=(const BrokerProcess&) = delete;

  pid_t pid() const { return pid_; }
  const std::string& socket_path() const { return socket_; }
  /// CPU seconds it has used since it started.
  double cpu_seconds() const;

 private:
  std::string directory_, socket_;
  pid_t pid_ = -1;
};

/// The path of a program of this build, e.g. "tandemd": beside the running one, or in the build
/// tree.
std::string program_path(const std::string& name);

}  // namespace tandem::broker
