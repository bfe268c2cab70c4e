// SPDX-License-Identifier: Apache-2.0
#include "apps/broker/token_watch.hpp"

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>

#include "tandem/base/mapping.hpp"

namespace tandem::broker {
namespace {

constexpr int kRounds = 16;  // of reading: somebody may make events faster than we take them

}  // namespace

TokenWatch::TokenWatch() : inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {}

Result<TokenWatch::Token> TokenWatch::make() {
  auto fd = make_sealed_memfd("tandem-token", kPageSize);
  if (!fd) return Unexpected{fd.error()};
  Token token{std::move(*fd), -1};
  if (inotify_) {
    const std::string path = "/proc/self/fd/" + std::to_string(token.fd.get());
    token.watch = ::inotify_add_watch(inotify_.get(), path.c_str(), IN_CLOSE_WRITE);
  }
  return token;
}

void TokenWatch::forget(int watch) noexcept {
  if (watch >= 0) ::inotify_rm_watch(inotify_.get(), watch);
}

TokenWatch::Closed TokenWatch::take_closed() {
  Closed closed;
  alignas(inotify_event) std::array<char, 4096> buffer;
  for (int round = 0; round < kRounds; ++round) {
    const ssize_t size = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (size <= 0) break;
    for (std::size_t at = 0; at + sizeof(inotify_event) <= static_cast<std::size_t>(size);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      at += sizeof event + event.len;
      if ((event.mask & IN_Q_OVERFLOW) != 0) closed.overflow = true;
      if ((event.mask & IN_CLOSE_WRITE) != 0) closed.watches.push_back(event.wd);
    }
  }
  return closed;
}

}  // namespace tandem::broker
