// SPDX-License-Identifier: Apache-2.0
/// Tests only: processes that do what a test tells them, system call by system call.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tandem/base/check.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::uacce::detail {

/// A process under test: this one, or a forked child. Strings and structures that exist when the
/// child is made are at the same address there.
class TestProcess {
 public:
  virtual ~TestProcess() = default;
  /// Returns: what the system call returned, or a negative errno.
  virtual long call(long number, std::array<std::uint64_t, 6> arguments) = 0;
  virtual std::vector<std::byte> peek(std::uint64_t address, std::size_t length) = 0;
  virtual void poke(std::uint64_t address, const std::vector<std::byte>& bytes) = 0;
  virtual MmAccess access() = 0;

  std::uint64_t map(std::size_t length, int protection, int flags = MAP_PRIVATE | MAP_ANONYMOUS,
                    long fd = -1, std::uint64_t at = 0) {
    const long mapped =
        call(SYS_mmap, {at, length, static_cast<std::uint64_t>(protection),
                        static_cast<std::uint64_t>(flags), static_cast<std::uint64_t>(fd), 0});
    TANDEM_CHECK(mapped > 0);
    return static_cast<std::uint64_t>(mapped);
  }
  long protect(std::uint64_t at, std::size_t length, int protection) {
    return call(SYS_mprotect, {at, length, static_cast<std::uint64_t>(protection)});
  }
  long unmap(std::uint64_t at, std::size_t length) { return call(SYS_munmap, {at, length}); }
  void fill(std::uint64_t at, std::size_t length, int value) {
    for (std::size_t done = 0; done < length; done += 4096) {
      poke(at + done, std::vector<std::byte>(std::min<std::size_t>(4096, length - done),
                                             static_cast<std::byte>(value)));
    }
  }
};

class SelfProcess final : public TestProcess {
 public:
  long call(long number, std::array<std::uint64_t, 6> a) override {
    const long result = ::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    return result < 0 ? -errno : result;
  }
  std::vector<std::byte> peek(std::uint64_t address, std::size_t length) override {
    const auto* const first = reinterpret_cast<const std::byte*>(address);
    return {first, first + length};
  }
  void poke(std::uint64_t address, const std::vector<std::byte>& bytes) override {
    std::memcpy(reinterpret_cast<void*>(address), bytes.data(), bytes.size());
  }
  MmAccess access() override {
    MmAccess access;
    access.kind = MmAccess::Kind::kSelf;
    return access;
  }
};

/// A forked child; killed and reaped by the destructor. It makes plain system calls only, so that
/// sanitizers need not know about it.
class ChildProcess final : public TestProcess {
 public:
  ChildProcess() {
    int sockets[2];
    TANDEM_CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
    pid_ = ::fork();
    TANDEM_CHECK(pid_ >= 0);
    if (pid_ == 0) serve(sockets[1]);
    ::close(sockets[1]);
    socket_.reset(sockets[0]);
  }
  ~ChildProcess() override {
    if (pid_ > 0) kill();
  }

  long call(long number, std::array<std::uint64_t, 6> arguments) override {
    Message message{number, arguments, 0, {}};
    send(message);
    TANDEM_CHECK(receive(message));
    return message.number;
  }
  std::vector<std::byte> peek(std::uint64_t address, std::size_t length) override {
    Message message{kPeek, {address}, length, {}};
    TANDEM_CHECK(length <= sizeof message.bytes);
    send(message);
    TANDEM_CHECK(receive(message));
    return {message.bytes, message.bytes + length};
  }
  void poke(std::uint64_t address, const std::vector<std::byte>& bytes) override {
    Message message{kPoke, {address}, bytes.size(), {}};
    TANDEM_CHECK(bytes.size() <= sizeof message.bytes);
    std::memcpy(message.bytes, bytes.data(), bytes.size());
    send(message);
    TANDEM_CHECK(receive(message));
  }
  /// The child's own /proc/self files, which it opens and sends.
  UniqueFd own_file(const char* name, int flags) {
    const long fd = call(
        SYS_openat, {static_cast<std::uint64_t>(AT_FDCWD), reinterpret_cast<std::uint64_t>(name),
                     static_cast<std::uint64_t>(flags)});
    return fd < 0 ? UniqueFd() : send_descriptor(static_cast<int>(fd));
  }
  /// The child sends its descriptor `fd` and closes it.
  UniqueFd send_descriptor(int fd) {
    Message message{kSendFd, {static_cast<std::uint64_t>(fd)}, 0, {}};
    send(message);
    iovec data{&message, sizeof message};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr header{};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    TANDEM_CHECK(::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC) > 0);
    int received = -1;
    std::memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof received);
    return UniqueFd(received);
  }
  MmAccess access() override {
    MmAccess access;
    access.kind = MmAccess::Kind::kDescriptors;
    access.mem = own_file("/proc/self/mem", O_RDWR | O_CLOEXEC);
    access.maps = own_file("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    return access;
  }
  /// Becomes another program, which sleeps.
  void exec() {
    static const char* const arguments[] = {"sleep", "1000", nullptr};
    static const char* const environment[] = {nullptr};
    Message message{
        SYS_execve,
        {reinterpret_cast<std::uint64_t>("/bin/sleep"), reinterpret_cast<std::uint64_t>(arguments),
         reinterpret_cast<std::uint64_t>(environment)},
        0,
        {}};
    send(message);
    TANDEM_CHECK(!receive(message));  // the socket is close-on-exec
  }
  void kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  pid_t pid() const { return pid_; }

 private:
  static constexpr long kPeek = -1;
  static constexpr long kPoke = -2;
  static constexpr long kSendFd = -3;
  struct Message {
    long number;  // of the system call; in replies what it returned
    std::array<std::uint64_t, 6> arguments;
    std::size_t length;
    std::byte bytes[4096];
  };

  void send(const Message& message) {
    TANDEM_CHECK(::send(socket_.get(), &message, sizeof message, MSG_NOSIGNAL) > 0);
  }
  bool receive(Message& message) { return ::recv(socket_.get(), &message, sizeof message, 0) > 0; }

  [[noreturn]] static void serve(int socket) {
    static Message message;  // not on a stack that a sanitizer guards
    while (::recv(socket, &message, sizeof message, 0) > 0) {
      const auto& a = message.arguments;
      if (message.number == kPeek || message.number == kPoke) {
        auto* const at = reinterpret_cast<volatile std::byte*>(a[0]);
        for (std::size_t i = 0; i < message.length; ++i) {
          if (message.number == kPeek) message.bytes[i] = at[i];
          if (message.number == kPoke) at[i] = message.bytes[i];
        }
      } else if (message.number == kSendFd) {
        iovec data{&message, sizeof message};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
        msghdr header{};
        header.msg_iov = &data;
        header.msg_iovlen = 1;
        header.msg_control = control;
        header.msg_controllen = sizeof control;
        cmsghdr* const rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        const int fd = static_cast<int>(a[0]);
        std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
        ::sendmsg(socket, &header, 0);
        ::close(fd);
        continue;
      } else {
        const long result = ::syscall(message.number, a[0], a[1], a[2], a[3], a[4], a[5]);
        message.number = result < 0 ? -errno : result;
      }
      ::send(socket, &message, sizeof message, MSG_NOSIGNAL);
    }
    ::_exit(0);
  }

  pid_t pid_ = -1;
  UniqueFd socket_;
};

}  // namespace tandem::uacce::detail
