// SPDX-License-Identifier: Apache-2.0
/// A client of the broker's socket that may say anything: what the library would never send.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "tandem/abi/control.h"
#include "tandem/base/unique_fd.hpp"

namespace tandem::e2e {

struct Answer {
  bool any = false;  ///< false: the broker hung up
  tandem_message_header header{};
  std::vector<std::byte> body;
  std::vector<UniqueFd> fds;
};

class RawClient {
 public:
  explicit RawClient(const std::string& path)
      : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    connected_ =
        ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  bool connected() const { return connected_; }
  int fd() const { return socket_.get(); }

  /// Sends `bytes` as one message. Returns the errno, or 0.
  int send_bytes(const void* bytes, std::size_t size, const std::vector<int>& fds = {}) {
    iovec part{const_cast<void*>(bytes), size};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    std::vector<std::byte> control(CMSG_SPACE(fds.size() * sizeof(int)));
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
    }
    return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) < 0 ? errno : 0;
  }

  Answer receive() {
    Answer answer;
    pollfd readable{socket_.get(), POLLIN, 0};
    if (::poll(&readable, 1, 10'000) != 1) return answer;
    std::array<std::byte, 2048> buffer{};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(8 * sizeof(int))> control{};
    iovec part{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (got < static_cast<ssize_t>(sizeof answer.header)) return answer;
    answer.any = true;
    std::memcpy(&answer.header, buffer.data(), sizeof answer.header);
    answer.body.assign(buffer.begin() + sizeof answer.header, buffer.begin() + got);
    for (cmsghdr* each = CMSG_FIRSTHDR(&message); each != nullptr;
         each = CMSG_NXTHDR(&message, each)) {
      if (each->cmsg_type != SCM_RIGHTS) continue;
      for (std::size_t at = 0; at + sizeof(int) <= each->cmsg_len - CMSG_LEN(0);
           at += sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(each) + at, sizeof fd);
        answer.fds.emplace_back(fd);
      }
    }
    return answer;
  }

  /// One request with a body of type T, and its answer.
  template <class T>
  Answer ask(std::uint32_t type, const T& body, const std::vector<int>& fds = {}) {
    std::array<std::byte, sizeof(tandem_message_header) + sizeof(T)> bytes{};
    const tandem_message_header header{type, static_cast<std::uint32_t>(bytes.size()), ++sequence_,
                                       0};
    std::memcpy(bytes.data(), &header, sizeof header);
    std::memcpy(bytes.data() + sizeof header, &body, sizeof body);
    if (send_bytes(bytes.data(), bytes.size(), fds) != 0) return {};
    return receive();
  }
  Answer ask_header(std::uint32_t type, std::uint32_t size, const std::vector<int>& fds = {}) {
    const tandem_message_header header{type, size, ++sequence_, 0};
    if (send_bytes(&header, sizeof header, fds) != 0) return {};
    return receive();
  }

  /// A HELLO as it should be, of this process; the nonce lies in this object.
  tandem_hello good_hello() {
    std::memset(nonce_.data(), 0x5a, nonce_.size());
    tandem_hello hello{};
    hello.version_min = TANDEM_PROTOCOL_MIN;
    hello.version_max = TANDEM_PROTOCOL_MAX;
    hello.nonce_address = reinterpret_cast<std::uint64_t>(nonce_.data());
    std::memcpy(hello.nonce, nonce_.data(), nonce_.size());
    return hello;
  }
  Answer say_hello() {
    const UniqueFd mem(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    const UniqueFd maps(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
    return ask(TANDEM_MSG_HELLO, good_hello(), {mem.get(), maps.get()});
  }

 private:
  UniqueFd socket_;
  bool connected_ = false;
  std::uint32_t sequence_ = 0;
  std::array<std::uint8_t, 16> nonce_{};
};

}  // namespace tandem::e2e
