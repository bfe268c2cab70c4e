// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/output_file.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

namespace tandem::cli {
namespace {

/// The temporary name, for the signal handler; empty: none. Written with the signals blocked.
char unfinished[4096];

constexpr std::array kStopSignals{SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGXCPU};

void remove_unfinished(int signal) {
  if (unfinished[0] != '\0') ::unlink(unfinished);
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

/// Keeps them from coming while it lives.
class StopSignalsBlocked {
 public:
  StopSignalsBlocked() {
    sigset_t stop;
    sigemptyset(&stop);
    for (const int signal : kStopSignals) sigaddset(&stop, signal);
    ::pthread_sigmask(SIG_BLOCK, &stop, &before_);
  }
  ~StopSignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  StopSignalsBlocked(const StopSignalsBlocked&) = delete;
  StopSignalsBlocked& operator=(const StopSignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

void set_unfinished(const char* path) {
  const StopSignalsBlocked blocked;
  std::strncpy(unfinished, path, sizeof unfinished - 1);
}

void handle_stop_signals() {
  static const bool done = [] {
    struct sigaction action {};
    action.sa_handler = remove_unfinished;
    for (const int signal : kStopSignals) {
      struct sigaction before {};
      ::sigaction(signal, nullptr, &before);
      if (before.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);  // nohup
    }
    return true;
  }();
  (void)done;
}

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? std::string("./") : path.substr(0, slash + 1);
}

Failure exists(const std::string& path) {
  return {kFailure, path + ": exists already; try: -f to replace it"};
}

}  // namespace

int write_all(int fd, std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return 0;
}

Result<OutputFile, Failure> OutputFile::create(const std::string& path, bool replace,
                                               std::string_view instead) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) == 0) {
    if (S_ISDIR(found.st_mode)) return Unexpected{from_errno(path, EISDIR)};
    // A rename would put a file in the place of, say, /dev/null or /dev/stdout.
    if (!S_ISREG(found.st_mode)) {
      return Unexpected{Failure{
          kFailure, fmt::format("{}: is not a regular file; try: {} >{}", path, instead, path)}};
    }
    if (!replace) return Unexpected{exists(path)};
  }
  handle_stop_signals();
  OutputFile file(path, replace);
  const std::string directory = directory_of(path);
  // Not named by the process id alone: in a container it is always the same, and what a killed one
  // left would be in the way.
  constexpr std::string_view kEnd = ".partial";
  std::string temporary = directory + ".tandem-XXXXXX" + std::string(kEnd);
  if (temporary.size() >= sizeof unfinished) return Unexpected{from_errno(path, ENAMETOOLONG)};
  const StopSignalsBlocked blocked;
  file.fd_ = UniqueFd(::mkostemps(temporary.data(), static_cast<int>(kEnd.size()), O_CLOEXEC));
  if (!file.fd_) {
    Failure failure = from_errno(path, errno);
    failure.text += "; try: a directory that can be written";
    return Unexpected{failure};
  }
  file.temporary_ = std::move(temporary);
  set_unfinished(file.temporary_.c_str());
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      replace_(other.replace_),
      fd_(std::move(other.fd_)) {}

OutputFile::~OutputFile() {
  if (temporary_.empty()) return;
  ::unlink(temporary_.c_str());
  set_unfinished("");
}

std::optional<Failure> OutputFile::commit(const struct stat& source, bool durable) {
  // The owner first: it clears the set-id bits, and only who may give files away succeeds. A file
  // that could not be given to the source's owner is not opened to a group that it was not meant
  // for.
  mode_t mode = source.st_mode & 07777;
  if (::fchown(fd(), source.st_uid, source.st_gid) != 0) {
    mode &= 0777;
    if (::fchown(fd(), static_cast<uid_t>(-1), source.st_gid) != 0) mode &= ~mode_t{S_IRWXG};
  }
  if (::fchmod(fd(), mode) != 0) return from_errno(path_, errno);
  const std::array<timespec, 2> times{source.st_atim, source.st_mtim};
  if (::futimens(fd(), times.data()) != 0) return from_errno(path_, errno);
  if (durable && ::fsync(fd()) != 0) return from_errno(path_, errno);
  const unsigned flags = replace_ ? 0 : RENAME_NOREPLACE;
  int renamed = ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), flags);
  if (renamed != 0 && errno == EINVAL && !replace_) {
    // A file system without that flag: link() does not replace either.
    renamed = ::link(temporary_.c_str(), path_.c_str());
    if (renamed == 0) ::unlink(temporary_.c_str());
  }
  if (renamed != 0) return errno == EEXIST ? exists(path_) : from_errno(path_, errno);
  temporary_.clear();
  set_unfinished("");
  if (durable) {
    const UniqueFd directory(
        ::open(directory_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // Some file systems cannot sync a directory; the data is safe under either name.
    if (directory) ::fsync(directory.get());
  }
  return std::nullopt;
}

}  // namespace tandem::cli
