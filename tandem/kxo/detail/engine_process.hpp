// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>

#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/kxo/detail/deadline.hpp"

namespace tandem::kxo::detail {

/// A program that is talked to in lines, and trusted with nothing: it may be silent, babble, end or
/// not read. No call lasts longer than its deadline.
///
/// The program is the leader of a process group, which is killed when this object goes.
/// Fork: a child holds a duplicate of the connection, and must not destroy the object.
/// Thread safety: one thread at a time.
class EngineProcess {
 public:
  static constexpr std::size_t kLongestLine = 1024;
  static constexpr std::size_t kMostUnread = 64 * 1024;  ///< between two send()

  /// Runs `command` by the shell, with no descriptors but the connection and /dev/null.
  /// Errors: those of socketpair() and posix_spawn().
  static Result<EngineProcess> start(const std::string& command);
  EngineProcess(EngineProcess&& other) noexcept;
  EngineProcess& operator=(EngineProcess&&) = delete;
  ~EngineProcess();

  /// Errors: EPIPE when the program has ended, ETIMEDOUT when it does not read.
  Result<void> send(std::string_view text, const Deadline& deadline);
  /// A line, without its end. Errors: EPIPE when the program has ended, ETIMEDOUT, EMSGSIZE when a
  /// line is too long or, since the last send(), there are too many.
  Result<std::string> receive(const Deadline& deadline);

 private:
  EngineProcess(pid_t leader, UniqueFd connection)
      : leader_(leader), connection_(std::move(connection)) {}
  Result<void> wait_for(short events, const Deadline& deadline) const;

  pid_t leader_ = -1;
  UniqueFd connection_;
  std::string unread_;
  std::size_t received_ = 0;
};

}  // namespace tandem::kxo::detail
