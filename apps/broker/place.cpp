// SPDX-License-Identifier: Apache-2.0
#include "apps/broker/place.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace tandem::broker {
namespace {

std::string why(int error) { return std::generic_category().message(error); }

std::string taken(const std::string& path) {
  return path + ": another broker listens there; try: TANDEM=unix:" + path + " tandem devices";
}

Result<sockaddr_un, std::string> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Unexpected{
        path + ": the name is longer than a socket's may be (107 bytes); try: a shorter path"};
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

bool somebody_answers(const sockaddr_un& address) {
  const UniqueFd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return false;
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return true;
  }
  return errno == EAGAIN;  // alive, with a full backlog
}

}  // namespace

std::string default_socket_path() {
  if (::geteuid() == 0) return "/run/tandem/broker.sock";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime == nullptr || *runtime == '\0') return {};
  return std::string(runtime) + "/tandem/broker.sock";
}

Result<Place, std::string> Place::listen(const std::string& path, mode_t mode) {
  const auto address = address_of(path);
  if (!address) return Unexpected{address.error()};
  const auto slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const bool for_others = ::geteuid() == 0 || (mode & 0066) != 0;
  if (::mkdir(directory.c_str(), for_others ? 0755 : 0700) != 0 && errno != EEXIST) {
    return Unexpected{directory + ": " + why(errno) + "; try: --socket in a directory of your own"};
  }
  struct stat around {};
  if (::stat(directory.c_str(), &around) == 0 && (around.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Unexpected{directory +
                      ": others can write there, so no client would trust the socket; "
                      "try: --socket in a directory of your own"};
  }

  Place place;
  // The lock decides between two brokers that start at once; it is let go by the kernel.
  const std::string lock_path = path + ".lock";
  place.lock_ =
      UniqueFd(::open(lock_path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!place.lock_) return Unexpected{lock_path + ": " + why(errno)};
  if (::flock(place.lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return Unexpected{taken(path)};
  }
  struct stat found {};
  if (::lstat(path.c_str(), &found) == 0) {
    if (!S_ISSOCK(found.st_mode)) {
      return Unexpected{path + ": exists and is not a socket; try: --socket with another name"};
    }
    if (somebody_answers(*address)) {
      return Unexpected{taken(path)};
    }
    if (::unlink(path.c_str()) != 0) return Unexpected{path + ": " + why(errno)};
  }

  place.listener_ = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!place.listener_) return Unexpected{why(errno)};
  // Accepted sockets inherit it, so no message comes without its sender's credentials.
  const int on = 1;
  if (::setsockopt(place.listener_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
    return Unexpected{why(errno)};
  }
  const mode_t before = ::umask(0177);
  const int bound =
      ::bind(place.listener_.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address);
  const int bind_error = errno;
  ::umask(before);
  if (bound != 0) return Unexpected{path + ": " + why(bind_error)};
  place.path_ = path;
  if (::chmod(path.c_str(), mode) != 0 || ::listen(place.listener_.get(), 256) != 0) {
    return Unexpected{path + ": " + why(errno)};
  }
  return place;
}

Place::Place(Place&& other) noexcept
    : path_(std::exchange(other.path_, {})),
      listener_(std::move(other.listener_)),
      lock_(std::move(other.lock_)) {}

Place& Place::operator=(Place&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(listener_, other.listener_);
  std::swap(lock_, other.lock_);
  return *this;
}

Place::~Place() {
  if (path_.empty()) return;
  ::unlink(path_.c_str());
}

}  // namespace tandem::broker
