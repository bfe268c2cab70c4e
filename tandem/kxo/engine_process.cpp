// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/engine_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>

extern char** environ;  // NOLINT(readability-redundant-declaration): not in every C library

namespace tandem::kxo::detail {
namespace {

/// What an engine gets to end by itself when it is told to.
constexpr std::chrono::milliseconds kPatience(100);

/// Attributes of a child: a process group of its own, and signals as a new program expects them.
class Spawn {
 public:
  explicit Spawn(int connection) {
    ::posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setpgroup(&attributes_, 0);
    ::posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawn_file_actions_adddup2(&actions_, connection, STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions_, connection, STDOUT_FILENO);
    ::posix_spawn_file_actions_addopen(&actions_, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1);
  }
  ~Spawn() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;

  /// Returns 0 or the errno.
  int shell(pid_t& pid, std::string command) const {
    std::string name = "sh", option = "-c";
    char* const arguments[] = {name.data(), option.data(), command.data(), nullptr};
    return ::posix_spawn(&pid, "/bin/sh", &actions_, &attributes_, arguments, environ);
  }

 private:
  posix_spawnattr_t attributes_;
  posix_spawn_file_actions_t actions_;
};

}  // namespace

Result<EngineProcess> EngineProcess::start(const std::string& command) {
  std::array<int, 2> ends{};
  // The engine's end blocks, as programs expect; ours is used without waiting.
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) return last_errno();
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  pid_t pid = -1;
  const int error = Spawn(theirs.get()).shell(pid, command);
  if (error != 0) return errno_error(error);
  return EngineProcess(pid, std::move(ours));
}

EngineProcess::EngineProcess(EngineProcess&& other) noexcept
    : leader_(std::exchange(other.leader_, -1)),
      connection_(std::move(other.connection_)),
      unread_(std::move(other.unread_)),
      received_(other.received_) {}

EngineProcess::~EngineProcess() {
  if (leader_ < 0) return;
  const Deadline deadline(kPatience);
  if (send("END\n", deadline)) {
    // It hangs up when it has ended; what it says is not heard any more.
    while (receive(deadline)) {
    }
  }
  // Not reaped yet, so that the number is still its own.
  ::kill(-leader_, SIGKILL);
  while (::waitpid(leader_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<void> EngineProcess::wait_for(short events, const Deadline& deadline) const {
  for (;;) {
    pollfd waiting{connection_.get(), events, 0};
    const int ready = ::poll(&waiting, 1, deadline.poll_timeout());
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return last_errno();
    if (deadline.passed()) return errno_error(ETIMEDOUT);
  }
}

Result<void> EngineProcess::send(std::string_view text, const Deadline& deadline) {
  received_ = 0;
  while (!text.empty()) {
    const ssize_t sent =
        ::send(connection_.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) text.remove_prefix(static_cast<std::size_t>(sent));
    if (sent >= 0 || errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) return errno_error(EPIPE);
    if (errno != EAGAIN) return last_errno();
    if (const auto waited = wait_for(POLLOUT, deadline); !waited) return waited;
  }
  return {};
}

Result<std::string> EngineProcess::receive(const Deadline& deadline) {
  for (;;) {
    const std::size_t end = unread_.find('\n');
    if (end > kLongestLine && unread_.size() > kLongestLine) return errno_error(EMSGSIZE);
    if (end != std::string::npos) {
      std::string line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      if (line.ends_with('\r')) line.pop_back();
      return line;
    }
    // Before every read: who never stops talking does not keep us.
    if (deadline.passed()) return errno_error(ETIMEDOUT);
    if (received_ > kMostUnread) return errno_error(EMSGSIZE);
    std::array<char, 4096> bytes;
    const ssize_t got = ::recv(connection_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) {
      unread_.append(bytes.data(), static_cast<std::size_t>(got));
      received_ += static_cast<std::size_t>(got);
    } else if (got == 0 || errno == ECONNRESET) {
      return errno_error(EPIPE);
    } else if (errno == EAGAIN) {
      if (const auto waited = wait_for(POLLIN, deadline); !waited) {
        return Unexpected{waited.error()};
      }
    } else if (errno != EINTR) {
      return last_errno();
    }
  }
}

}  // namespace tandem::kxo::detail
