// SPDX-License-Identifier: Apache-2.0
/// Who dies, and what the others notice.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "apps/broker_process/broker_process.hpp"
#include "tandem/wd/wd.h"
#include "tests/e2e/raw_client.hpp"
#include "tests/e2e/silent_file.hpp"

namespace tandem::e2e {
namespace {

using std::chrono::milliseconds;

/// Asks until `done` says so; false after a minute.
template <class Done>
bool eventually(const Done& done) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!done()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

class BrokerLife : public testing::Test {
 protected:
  /// Device "mem-0" as the broker tells it to anybody.
  tandem_devices_reply device() {
    RawClient client(broker_->socket_path());
    EXPECT_EQ(client.say_hello().header.status, 0);
    const Answer answer = client.ask(TANDEM_MSG_DEVICES, tandem_devices{});
    tandem_devices_reply reply{};
    if (answer.body.size() == sizeof reply) std::memcpy(&reply, answer.body.data(), sizeof reply);
    return reply;
  }

  /// Starts a tenant that keeps requests pending until it is killed; returns when it is at work.
  pid_t start_tenant() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      wd_queue queue = WD_QUEUE_INIT;
      static std::array<std::byte, 1 << 20> memory;
      std::array<wd_request, 16> requests{};
      if (wd_open(&queue, "memory") != 0 || wd_reserve_memory(&queue, 1 << 20) == nullptr) {
        ::_exit(1);
      }
      for (bool told = false;; told = true) {
        for (auto& request : requests) {
          request = wd_request{};
          request.opcode = WD_OP_FILL;
          request.dst = memory.data();
          request.dst_len = static_cast<std::uint32_t>(memory.size());
          if (wd_send(&queue, &request) != 0) ::_exit(2);
        }
        if (!told && ::write(ends[1], "r", 1) != 1) ::_exit(3);
        for (std::size_t i = 0; i < requests.size(); ++i) {
          wd_request* done = nullptr;
          if (wd_recv_sync(&queue, &done) != 1) ::_exit(4);
        }
      }
    }
    ::close(ends[1]);
    char byte = 0;
    EXPECT_EQ(::read(ends[0], &byte, 1), 1);
    ::close(ends[0]);
    return pid;
  }

  std::unique_ptr<broker::BrokerProcess> broker_ = broker::BrokerProcess::start({}).value();
};

TEST_F(BrokerLife, AKilledTenantsQueuesAreCleanedUp) {
  const pid_t tenant = start_tenant();
  EXPECT_EQ(device().queues_used, 1u);
  ::kill(tenant, SIGKILL);
  ::waitpid(tenant, nullptr, 0);
  EXPECT_TRUE(eventually([&] { return device().queues_used == 0; }));
}

/// Kills a tenant whose child inherits every descriptor and lives on. Returns: why the broker says
/// that the tenant has ended.
std::string end_of_killed_tenant_with_child(broker::BrokerProcess& broker) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t tenant = ::fork();
  if (tenant == 0) {
    wd_queue queue = WD_QUEUE_INIT;
    if (wd_open(&queue, "memory") != 0) ::_exit(1);
    const pid_t child = ::fork();
    if (child == 0) {
      for (;;) ::pause();
    }
    if (::write(ends[1], &child, sizeof child) != sizeof child) ::_exit(1);
    for (;;) ::pause();
  }
  pid_t child = 0;
  EXPECT_EQ(::read(ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ::kill(tenant, SIGKILL);
  ::waitpid(tenant, nullptr, 0);
  const auto* const ended = broker.wait_for("ended", tenant, std::chrono::seconds(20));
  EXPECT_EQ(::kill(child, 0), 0);
  ::kill(child, SIGKILL);
  ::close(ends[0]);
  ::close(ends[1]);
  return ended != nullptr ? ended->why : "nobody noticed";
}

TEST_F(BrokerLife, AKilledTenantIsNoticedThoughItsChildHoldsTheSocket) {
  broker_.reset();
  broker_ = broker::BrokerProcess::start({.events = true}).value();
  // Only the token tells; but a sweep that comes at that moment may be faster now and then.
  std::string why;
  for (int i = 0; i < 5 && why != "address space ended"; ++i) {
    why = end_of_killed_tenant_with_child(*broker_);
  }
  EXPECT_EQ(why, "address space ended");
}

/// The eventfds that this process has: the one with which the library wakes engines is among them.
std::vector<int> eventfds() {
  std::vector<int> found;
  for (int fd = 3; fd < 256; ++fd) {
    std::array<char, 64> target{};
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    if (::readlink(link.c_str(), target.data(), target.size() - 1) <= 0) continue;
    if (std::string_view(target.data()) == "anon_inode:[eventfd]") found.push_back(fd);
  }
  return found;
}

/// Sends requests with pauses in which the engine goes to sleep. Returns how many came back within
/// a minute of being sent; the first that does not ends it.
int requests_that_woke(wd_queue& queue, int count) {
  for (int i = 0; i < count; ++i) {
    std::this_thread::sleep_for(milliseconds(2));  // far beyond the time engines spin
    wd_request request{};
    request.opcode = WD_OP_CRC32C;
    request.src = "123456789";
    request.src_len = 9;
    wd_request* done = nullptr;
    if (wd_send(&queue, &request) != 0) return i;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (wd_recv(&queue, &done) == -EAGAIN) {
      if (std::chrono::steady_clock::now() > until) return i;
      std::this_thread::yield();
    }
    if (done == nullptr || done->result != 0xe3069283u) return i;
  }
  return count;
}

class AChildWithTheWakeDescriptor : public BrokerLife {
 protected:
  void SetUp() override { ASSERT_EQ(wd_open(&queue_, "crc32c"), 0); }
  void TearDown() override { wd_release_queue(&queue_); }

  /// Has a forked child do `mischief` with each inherited eventfd, until it is killed.
  template <class Mischief>
  void expect_wakes_despite(Mischief mischief) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const auto fds = eventfds();
      if (fds.size() != 1) ::_exit(1);
      mischief(fds.front());
      if (::write(ends[1], "r", 1) != 1) ::_exit(1);
      for (;;) mischief(fds.front());
    }
    ::close(ends[1]);
    char byte = 0;
    EXPECT_EQ(::read(ends[0], &byte, 1), 1) << "the child could do nothing";
    ::close(ends[0]);
    EXPECT_EQ(requests_that_woke(queue_, 100), 100);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }

  wd_queue queue_ = WD_QUEUE_INIT;
};

TEST_F(AChildWithTheWakeDescriptor, CannotFillItUp) {
  expect_wakes_despite([](int fd) {
    const std::uint64_t all = 0xfffffffffffffffe;
    [[maybe_unused]] const ssize_t written = ::write(fd, &all, sizeof all);
    std::this_thread::sleep_for(milliseconds(1));
  });
}

TEST_F(AChildWithTheWakeDescriptor, CannotFillItUpOnceAndForAll) {
  expect_wakes_despite([done = false](int fd) mutable {
    const std::uint64_t all = 0xfffffffffffffffe;
    if (!done && ::write(fd, &all, sizeof all) != sizeof all) ::_exit(1);
    done = true;
    std::this_thread::sleep_for(milliseconds(1));
  });
}

TEST_F(AChildWithTheWakeDescriptor, CannotMakeTheEngineBlock) {
  expect_wakes_despite([](int fd) {
    ::fcntl(fd, F_SETFL, 0);
    const std::uint64_t all = 0xfffffffffffffffe;
    [[maybe_unused]] const ssize_t written = ::write(fd, &all, sizeof all);
    ::fcntl(fd, F_SETFL, O_NONBLOCK);
    std::this_thread::yield();
  });
}

TEST_F(AChildWithTheWakeDescriptor, CannotStealWakeUps) {
  expect_wakes_despite([](int fd) {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t stolen = ::read(fd, &count, sizeof count);
  });
}

/// What a process is blocked in: a system call's number, -1 a page fault; nothing while it runs.
std::optional<long> blocked_in(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/syscall");
  long number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

/// How many threads wait for something that no signal ends.
int uninterruptible_threads(pid_t pid) {
  int count = 0;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::ifstream stat(task.path() / "stat");
    std::string text;
    if (!std::getline(stat, text)) continue;  // it has ended
    count += text.compare(text.rfind(')') + 2, 1, "D") == 0 ? 1 : 0;
  }
  return count;
}

TEST_F(BrokerLife, AnOperandInAFileThatNeverAnswersBlocksItsClientAlone) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  SilentFile file;
  const pid_t tenant = ::fork();
  if (tenant == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::byte* const silent = file.map_in_child();
    if (silent == nullptr) ::_exit(77);
    wd_queue queue = WD_QUEUE_INIT;
    if (wd_open(&queue, "crc32c") != 0) ::_exit(1);
    wd_request request{};
    request.opcode = WD_OP_CRC32C;
    request.src = silent;
    request.src_len = 64;
    if (wd_send(&queue, &request) != 0) ::_exit(2);
    if (::write(ends[1], "r", 1) != 1) ::_exit(3);
    wd_request* done = nullptr;
    // The engine says that it needs staging; the library's own copy waits for the file.
    ::_exit(wd_recv_sync(&queue, &done) == 1 ? 4 : 5);
  }
  ::close(ends[1]);
  file.drop_device();
  char byte = 0;
  const bool sent = ::read(ends[0], &byte, 1) == 1;
  ::close(ends[0]);
  int status = -1;
  if (!sent) {
    ASSERT_EQ(::waitpid(tenant, &status, 0), tenant);
    ASSERT_EQ(WEXITSTATUS(status), 77);
    GTEST_SKIP() << "no FUSE mount in an own namespace (needs root and /dev/fuse)";
  }
  // Its own copy: a page fault, or the system call that copies without one.
  EXPECT_TRUE(eventually([&] {
    const auto what = blocked_in(tenant);
    return what == -1 || what == SYS_process_vm_readv;
  }));
  // No thread of the broker waits with it, and others are served by the one engine there is. For a
  // moment any thread may be in such a state.
  EXPECT_TRUE(eventually([&] { return uninterruptible_threads(broker_->pid()) == 0; }));
  wd_queue queue = WD_QUEUE_INIT;
  ASSERT_EQ(wd_open(&queue, "crc32c"), 0);
  EXPECT_EQ(requests_that_woke(queue, 20), 20);
  wd_release_queue(&queue);
  EXPECT_EQ(device().queues_used, 1u) << "the tenant's, alive";
  // Its end is cleaned up as anybody's. It cannot end before the file's server does.
  ::kill(tenant, SIGKILL);
  file.end();
  ASSERT_EQ(::waitpid(tenant, &status, 0), tenant);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(eventually([&] { return device().queues_used == 0; }));
}

TEST_F(BrokerLife, ExecEndsTheAddressSpaceThoughTheProcessLives) {
  std::array<int, 2> up{}, down{};
  ASSERT_EQ(::pipe2(up.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(down.data(), O_CLOEXEC), 0);
  const pid_t tenant = ::fork();
  if (tenant == 0) {
    wd_queue queue = WD_QUEUE_INIT;
    if (wd_open(&queue, "memory") != 0) ::_exit(1);
    const pid_t holder = ::fork();  // holds the socket
    if (holder == 0) {
      for (;;) ::pause();
    }
    char byte = 0;
    if (::write(up[1], &holder, sizeof holder) != sizeof holder) ::_exit(1);
    if (::read(down[0], &byte, 1) != 1) ::_exit(1);
    ::execl("/bin/sleep", "sleep", "60", nullptr);
    ::_exit(127);
  }
  pid_t holder = 0;
  ASSERT_EQ(::read(up[0], &holder, sizeof holder), static_cast<ssize_t>(sizeof holder));
  EXPECT_EQ(device().queues_used, 1u);
  ASSERT_EQ(::write(down[1], "g", 1), 1);
  EXPECT_TRUE(eventually([&] { return device().queues_used == 0; }));
  EXPECT_EQ(::waitpid(tenant, nullptr, WNOHANG), 0) << "the process should still run";
  for (const pid_t pid : {tenant, holder}) ::kill(pid, SIGKILL);
  ::waitpid(tenant, nullptr, 0);
  for (const int fd : {up[0], up[1], down[0], down[1]}) ::close(fd);
}

TEST_F(BrokerLife, APasidIsNotUsedAgainAtOnce) {
  std::vector<std::uint32_t> pasids;
  for (int i = 0; i < 40; ++i) {
    RawClient client(broker_->socket_path());
    const Answer answer = client.say_hello();
    ASSERT_EQ(answer.body.size(), sizeof(tandem_hello_reply));
    tandem_hello_reply reply{};
    std::memcpy(&reply, answer.body.data(), sizeof reply);
    pasids.push_back(reply.pasid);
  }
  EXPECT_EQ(std::set<std::uint32_t>(pasids.begin(), pasids.end()).size(), pasids.size());
}

TEST_F(BrokerLife, WhenTheBrokerIsKilledEveryRequestComesBackOnce) {
  wd_queue queue = WD_QUEUE_INIT;
  ASSERT_EQ(wd_open(&queue, "memory"), 0);
  constexpr std::size_t kRequests = 64;
  std::vector<std::byte> memory(8 << 20);
  std::array<wd_request, kRequests> requests{};
  std::array<int, kRequests> returned{};
  const auto send = [&](wd_request& request) {
    request.opcode = WD_OP_FILL;
    request.dst = memory.data();
    request.dst_len = static_cast<std::uint32_t>(memory.size());
    return wd_send(&queue, &request);
  };
  // Of the first half many are done when the broker goes, of the others, sent while it stands
  // still, none.
  for (std::size_t i = 0; i < kRequests / 2; ++i) ASSERT_EQ(send(requests[i]), 0);
  siginfo_t stopped{};
  ASSERT_EQ(::kill(broker_->pid(), SIGSTOP), 0);
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(broker_->pid()), &stopped, WSTOPPED), 0);
  for (std::size_t i = kRequests / 2; i < kRequests; ++i) ASSERT_EQ(send(requests[i]), 0);
  ::kill(broker_->pid(), SIGKILL);
  std::size_t lost = 0;
  for (std::size_t i = 0; i < kRequests; ++i) {
    wd_request* done = nullptr;
    ASSERT_EQ(wd_recv_sync(&queue, &done), 1) << i;
    const auto index = static_cast<std::size_t>(done - requests.data());
    ASSERT_LT(index, kRequests);
    ++returned[index];
    EXPECT_TRUE(done->status == TANDEM_STATUS_OK || done->status == TANDEM_STATUS_DEVICE_LOST)
        << wd_strstatus(done->status);
    lost += done->status == TANDEM_STATUS_DEVICE_LOST ? 1u : 0u;
  }
  for (const int times : returned) EXPECT_EQ(times, 1);
  EXPECT_GE(lost, kRequests / 2);
  wd_request* none = nullptr;
  EXPECT_EQ(wd_recv(&queue, &none), -ESHUTDOWN);
  EXPECT_EQ(wd_send(&queue, &requests[0]), -ESHUTDOWN);

  // Another broker comes: the library can open again.
  broker_.reset();
  broker_ = broker::BrokerProcess::start({}).value();
  wd_queue again = WD_QUEUE_INIT;
  ASSERT_EQ(wd_open(&again, "memory"), 0) << "a new broker";
  requests[0] = wd_request{};
  requests[0].opcode = WD_OP_FILL;
  requests[0].dst = memory.data();
  requests[0].dst_len = 4096;
  ASSERT_EQ(wd_send(&again, &requests[0]), 0);
  ASSERT_EQ(wd_recv_sync(&again, &none), 1);
  EXPECT_EQ(none->status, TANDEM_STATUS_OK);
  wd_release_queue(&again);
  wd_release_queue(&queue);
}

TEST_F(BrokerLife, WhatABrokerThatIsToldToStopHadInHandIsNotWrittenAfterwards) {
  wd_queue queue = WD_QUEUE_INIT;
  ASSERT_EQ(wd_open(&queue, "gzip"), 0);
  std::vector<std::byte> plain(16 << 20), packed(18 << 20);
  std::uint32_t random = 1;
  for (auto& byte : plain) {
    random = random * 1664525 + 1013904223;
    byte = std::byte{static_cast<unsigned char>("etaoin shrdlu"[(random >> 24) % 13])};
  }
  wd_request request{};
  request.opcode = WD_OP_GZIP;
  request.param = 12;  // takes seconds
  request.src = plain.data();
  request.src_len = static_cast<std::uint32_t>(plain.size());
  request.dst = packed.data();
  request.dst_len = static_cast<std::uint32_t>(packed.size());
  const double before = broker_->cpu_seconds();
  ASSERT_EQ(wd_send(&queue, &request), 0);
  ASSERT_TRUE(eventually([&] { return broker_->cpu_seconds() > before + 0.1; }));
  ::kill(broker_->pid(), SIGTERM);
  wd_request* done = nullptr;
  ASSERT_EQ(wd_recv_sync(&queue, &done), 1);
  EXPECT_EQ(done->status, TANDEM_STATUS_DEVICE_LOST);
  std::fill(packed.begin(), packed.end(), std::byte{0xa5});  // it is ours again
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(broker_->pid()), &ended, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(std::all_of(packed.begin(), packed.end(),
                          [](std::byte byte) { return byte == std::byte{0xa5}; }));
  wd_release_queue(&queue);
}

/// A tandemd with arguments of its own, in the place of a broker that was killed.
class Successor {
 public:
  Successor(const std::string& path, const std::vector<std::string>& more) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    const std::string program = broker::program_path("tandemd");
    std::vector<std::string> words{"tandemd", "--quiet",    "--socket",
                                   path,      "--ready-fd", std::to_string(ends[1])};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::execv(program.c_str(), argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    char byte = 0;
    up_ = ::read(ends[0], &byte, 1) == 1;
    ::close(ends[0]);
  }
  ~Successor() { stop(); }
  bool up() const { return up_; }
  int stop() {
    if (pid_ <= 0) return -1;
    ::kill(pid_, SIGTERM);
    int status = -1;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return status;
  }

 private:
  pid_t pid_ = -1;
  bool up_ = false;
};

TEST_F(BrokerLife, StaleSocketsAreReplaced) {
  // Killed, it could not remove its socket; the next one at that place starts all the same.
  ::kill(broker_->pid(), SIGKILL);
  ::waitpid(broker_->pid(), nullptr, 0);
  Successor second(broker_->socket_path(), {});
  ASSERT_TRUE(second.up());
  RawClient client(broker_->socket_path());
  EXPECT_EQ(client.say_hello().header.status, 0);
  EXPECT_EQ(second.stop(), 0) << "SIGTERM is an orderly end";
}

TEST_F(BrokerLife, AUserWithTooManyConnectionsIsToldSo) {
  ::kill(broker_->pid(), SIGKILL);
  ::waitpid(broker_->pid(), nullptr, 0);
  Successor second(broker_->socket_path(), {"--connections-per-user", "2"});
  ASSERT_TRUE(second.up());
  RawClient first(broker_->socket_path());
  ASSERT_EQ(first.say_hello().header.status, 0);
  {
    RawClient other(broker_->socket_path());
    ASSERT_EQ(other.say_hello().header.status, 0);
    RawClient third(broker_->socket_path());
    EXPECT_EQ(third.say_hello().header.status, -EMFILE);
  }
  EXPECT_TRUE(eventually([&] {
    RawClient again(broker_->socket_path());
    return again.say_hello().header.status == 0;
  }));
}

}  // namespace
}  // namespace tandem::e2e
