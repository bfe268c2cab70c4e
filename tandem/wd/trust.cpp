// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/trust.hpp"

#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>

#include "tandem/base/features.hpp"

namespace tandem::wd::detail {
namespace {

/// The variable's value; empty when it is not set, and in set-id programs.
std::string_view environment(const char* name) noexcept {
  const char* const text = ::secure_getenv(name);
  return text == nullptr ? std::string_view() : std::string_view(text);
}

std::optional<uid_t> configured_uid() noexcept {
  const std::string_view text = environment("TANDEM_TRUST_UID");
  uid_t uid = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, uid);
  if (error != std::errc() || stop != end || text.empty()) return std::nullopt;
  return uid;
}

bool trusted_user(uid_t uid) noexcept {
  return uid == 0 || uid == ::geteuid() || uid == configured_uid();
}

bool private_directory(const struct stat& status) noexcept {
  return S_ISDIR(status.st_mode) && trusted_user(status.st_uid) &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

bool trusted_peer(int socket) noexcept {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return trusted_user(peer.uid);
}

}  // namespace

bool runs_secure() noexcept { return ::getauxval(AT_SECURE) != 0; }

bool trust_is_understood() noexcept {
  const std::string_view tier = environment("TANDEM_TRUST");
  const bool any_user = environment("TANDEM_TRUST_UID").empty() || configured_uid();
  return any_user && (tier.empty() || tier == "reserved-only");
}

bool memory_may_be_sent() noexcept {
  return environment("TANDEM_TRUST").empty() && feature_allowed(Feature::kProcMem);
}

Result<UniqueFd> connect_to_trusted(const std::string& path) {
  if (runs_secure()) return errno_error(EACCES);
  const auto slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.empty()) return errno_error(EINVAL);

  const UniqueFd place(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place) return last_errno();
  struct stat status {};
  if (::fstat(place.get(), &status) != 0) return last_errno();
  struct stat target {};
  if (::fstatat(place.get(), name.c_str(), &target, AT_SYMLINK_NOFOLLOW) != 0) return last_errno();
  if (!private_directory(status) || !S_ISSOCK(target.st_mode)) return errno_error(EACCES);

  const std::string through = "/proc/self/fd/" + std::to_string(place.get()) + "/" + name;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (through.size() >= sizeof address.sun_path) return errno_error(ENAMETOOLONG);
  std::memcpy(address.sun_path, through.c_str(), through.size() + 1);
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) return last_errno();
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return last_errno();
  }
  if (!trusted_peer(socket.get())) return errno_error(EACCES);
  return socket;
}

}  // namespace tandem::wd::detail
