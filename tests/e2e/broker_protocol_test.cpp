// SPDX-License-Identifier: Apache-2.0
/// What a broker does with messages that no library sends: an error to the sender, and nothing
/// else.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "apps/broker_process/broker_process.hpp"
#include "tandem/wd/wd.h"
#include "tests/e2e/raw_client.hpp"

namespace tandem::e2e {
namespace {

class BrokerProtocol : public testing::Test {
 protected:
  RawClient connect() { return RawClient(broker_->socket_path()); }

  /// Every test ends with this: somebody else still gets an answer, and a right one.
  void TearDown() override {
    wd_queue queue = WD_QUEUE_INIT;
    ASSERT_EQ(wd_open(&queue, "crc32c"), 0);
    wd_request request{};
    request.opcode = WD_OP_CRC32C;
    request.src = "123456789";
    request.src_len = 9;
    wd_request* done = nullptr;
    ASSERT_EQ(wd_send(&queue, &request), 0);
    ASSERT_EQ(wd_recv_sync(&queue, &done), 1);
    EXPECT_EQ(done->status, TANDEM_STATUS_OK);
    EXPECT_EQ(done->result, 0xe3069283u);
    wd_release_queue(&queue);
  }

  long descriptors_of_broker() const {
    const auto entries =
        std::filesystem::directory_iterator("/proc/" + std::to_string(broker_->pid()) + "/fd");
    return std::distance(begin(entries), end(entries));
  }

  std::unique_ptr<broker::BrokerProcess> broker_ = broker::BrokerProcess::start({}).value();
};

TEST_F(BrokerProtocol, HelloIsAnsweredWithAPasidAndTwoDescriptors) {
  RawClient client = connect();
  const Answer answer = client.say_hello();
  ASSERT_TRUE(answer.any);
  ASSERT_EQ(answer.header.status, 0);
  ASSERT_EQ(answer.body.size(), sizeof(tandem_hello_reply));
  tandem_hello_reply reply{};
  std::memcpy(&reply, answer.body.data(), sizeof reply);
  EXPECT_EQ(reply.version, TANDEM_PROTOCOL_MAX);
  EXPECT_NE(reply.pasid, 0u);
  EXPECT_EQ(answer.fds.size(), 2u);
}

TEST_F(BrokerProtocol, UnknownTypesAreProtocolErrorsAndTheConnectionStays) {
  RawClient client = connect();
  ASSERT_EQ(client.say_hello().header.status, 0);
  for (const std::uint32_t type : {0u, 14u, 1000u, 0xffffffffu}) {
    const Answer answer = client.ask_header(type, sizeof(tandem_message_header));
    ASSERT_TRUE(answer.any) << type;
    EXPECT_EQ(answer.header.status, -EPROTO) << type;
  }
  const Answer stats = client.ask_header(TANDEM_MSG_STATS, sizeof(tandem_message_header));
  EXPECT_EQ(stats.header.status, 0);
  EXPECT_EQ(stats.body.size(), sizeof(tandem_stats_reply));
}

TEST_F(BrokerProtocol, ShortLongAndLyingMessagesAreBadMessages) {
  RawClient client = connect();
  ASSERT_EQ(client.say_hello().header.status, 0);
  std::array<std::byte, 4096> bytes{};
  // Shorter than a header; the header alone; a body one byte short, one long; far too long.
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{15}, sizeof(tandem_message_header),
        sizeof(tandem_message_header) + sizeof(tandem_open) - 1,
        sizeof(tandem_message_header) + sizeof(tandem_open) + 1, std::size_t{4096}}) {
    const tandem_message_header header{TANDEM_MSG_OPEN, static_cast<std::uint32_t>(size), 7, 0};
    std::memcpy(bytes.data(), &header, sizeof header);
    ASSERT_EQ(client.send_bytes(bytes.data(), size), 0);
    const Answer answer = client.receive();
    ASSERT_TRUE(answer.any) << size;
    EXPECT_EQ(answer.header.status, -EBADMSG) << size;
  }
  // As long as it should be, but it says otherwise.
  const tandem_message_header lie{TANDEM_MSG_STATS, 17, 8, 0};
  ASSERT_EQ(client.send_bytes(&lie, sizeof lie), 0);
  EXPECT_EQ(client.receive().header.status, -EBADMSG);
}

TEST_F(BrokerProtocol, NothingBeforeHelloAndNoSecondHello) {
  RawClient client = connect();
  EXPECT_EQ(client.ask(TANDEM_MSG_DEVICES, tandem_devices{}).header.status, -EPROTO);
  ASSERT_EQ(client.say_hello().header.status, 0);
  EXPECT_EQ(client.say_hello().header.status, -EPROTO);
  EXPECT_EQ(client.ask(TANDEM_MSG_DEVICES, tandem_devices{}).header.status, 0);
}

TEST_F(BrokerProtocol, VersionsWithoutCommonOneAreRefused) {
  RawClient client = connect();
  const UniqueFd mem(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  const UniqueFd maps(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  tandem_hello hello = client.good_hello();
  const auto with = [&](std::uint32_t low, std::uint32_t high) {
    hello.version_min = low;
    hello.version_max = high;
    return client.ask(TANDEM_MSG_HELLO, hello, {mem.get(), maps.get()}).header.status;
  };
  EXPECT_EQ(with(TANDEM_PROTOCOL_MAX + 1, TANDEM_PROTOCOL_MAX + 5), -EPROTONOSUPPORT);
  EXPECT_EQ(with(0, TANDEM_PROTOCOL_MIN - 1), -EPROTONOSUPPORT);
  EXPECT_EQ(with(TANDEM_PROTOCOL_MAX, TANDEM_PROTOCOL_MIN - 1), -EPROTONOSUPPORT);
  // A newer client that still speaks ours is served in ours.
  EXPECT_EQ(with(TANDEM_PROTOCOL_MIN, TANDEM_PROTOCOL_MAX + 5), 0);
}

TEST_F(BrokerProtocol, HelloWithWrongDescriptorsIsRefused) {
  const UniqueFd mem(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  const UniqueFd maps(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const UniqueFd file(::memfd_create("not-memory", MFD_CLOEXEC));
  RawClient client = connect();
  const auto with = [&](const std::vector<int>& fds) {
    return client.ask(TANDEM_MSG_HELLO, client.good_hello(), fds).header.status;
  };
  EXPECT_EQ(with({}), -EPROTO);
  EXPECT_EQ(with({mem.get()}), -EPROTO);
  EXPECT_EQ(with({mem.get(), maps.get(), null.get()}), -EPROTO);
  EXPECT_EQ(with({maps.get(), mem.get()}), -EACCES);
  EXPECT_EQ(with({null.get(), maps.get()}), -EACCES);
  EXPECT_EQ(with({file.get(), maps.get()}), -EACCES);
  EXPECT_EQ(with({mem.get(), file.get()}), -EACCES);
  EXPECT_EQ(with({mem.get(), mem.get()}), -EACCES);
  tandem_hello reserved_only = client.good_hello();
  reserved_only.flags = TANDEM_HELLO_RESERVED_ONLY;
  EXPECT_EQ(client.ask(TANDEM_MSG_HELLO, reserved_only, {mem.get(), maps.get()}).header.status,
            -EPROTO);
  tandem_hello unknown_flag = client.good_hello();
  unknown_flag.flags = 0x80;
  EXPECT_EQ(client.ask(TANDEM_MSG_HELLO, unknown_flag, {mem.get(), maps.get()}).header.status,
            -EINVAL);
  EXPECT_EQ(with({mem.get(), maps.get()}), 0);
}

/// A process that does nothing until it is let go.
class Sleeper {
 public:
  Sleeper() : pid_(::fork()) {
    if (pid_ == 0) {
      for (;;) ::pause();
    }
  }
  ~Sleeper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  UniqueFd open(const char* what, int flags) const {
    return UniqueFd(
        ::open(("/proc/" + std::to_string(pid_) + "/" + what).c_str(), flags | O_CLOEXEC));
  }

 private:
  pid_t pid_;
};

TEST_F(BrokerProtocol, MemAndMapsOfDifferentProcessesAreRefused) {
  const Sleeper other;
  const UniqueFd mem(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  const UniqueFd maps(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  const UniqueFd other_mem = other.open("mem", O_RDWR);
  const UniqueFd other_maps = other.open("maps", O_RDONLY);
  ASSERT_TRUE(other_mem && other_maps);
  RawClient client = connect();
  const auto with = [&](const UniqueFd& a, const UniqueFd& b) {
    return client.ask(TANDEM_MSG_HELLO, client.good_hello(), {a.get(), b.get()}).header.status;
  };
  EXPECT_EQ(with(mem, other_maps), -EACCES);
  EXPECT_EQ(with(other_mem, maps), -EACCES);
}

TEST_F(BrokerProtocol, MemoryWithoutTheNonceIsRefused) {
  const UniqueFd mem(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  const UniqueFd maps(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  RawClient client = connect();
  tandem_hello wrong = client.good_hello();
  wrong.nonce[3] ^= 1;
  EXPECT_EQ(client.ask(TANDEM_MSG_HELLO, wrong, {mem.get(), maps.get()}).header.status, -EACCES);
  tandem_hello nowhere = client.good_hello();
  nowhere.nonce_address = 8;
  EXPECT_EQ(client.ask(TANDEM_MSG_HELLO, nowhere, {mem.get(), maps.get()}).header.status, -EACCES);
  tandem_hello negative = client.good_hello();
  negative.nonce_address = ~std::uint64_t{0} - 4;
  EXPECT_EQ(client.ask(TANDEM_MSG_HELLO, negative, {mem.get(), maps.get()}).header.status, -EACCES);
}

/// Runs `body` in a forked child; true when it returned true.
template <class Body>
bool in_child(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = -1;
  return ::waitpid(child, &status, 0) == child && status == 0;
}

TEST_F(BrokerProtocol, AForkedChildsMessagesAreNotAnswered) {
  RawClient client = connect();
  ASSERT_EQ(client.say_hello().header.status, 0);
  const tandem_message_header request{TANDEM_MSG_STATS, sizeof request, 4711, 0};
  const tandem_message_header nonsense{77, sizeof nonsense, 4712, 0};
  // It reads nothing: an answer would lie there for its parent.
  ASSERT_TRUE(in_child([&] {
    return client.send_bytes(&request, sizeof request) == 0 &&
           client.send_bytes(&nonsense, sizeof nonsense) == 0;
  }));
  const tandem_message_header own{TANDEM_MSG_STATS, sizeof own, 1234, 0};
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(client.send_bytes(&own, sizeof own), 0);
    const Answer answer = client.receive();
    ASSERT_TRUE(answer.any);
    EXPECT_EQ(answer.header.sequence, own.sequence);
    EXPECT_EQ(answer.header.status, 0);
  }
}

TEST_F(BrokerProtocol, AForkedChildsMessagesDoNotEndItsParentsQueues) {
  wd_queue queue = WD_QUEUE_INIT;
  ASSERT_EQ(wd_open(&queue, "crc32c"), 0);
  ASSERT_TRUE(in_child([] {
    // Every inherited socket, since the library tells nobody which is its own.
    bool sent = false;
    for (int fd = 3; fd < 256; ++fd) {
      const tandem_message_header request{TANDEM_MSG_STATS, sizeof request, 4711, 0};
      sent |= ::send(fd, &request, sizeof request, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
    }
    return sent;
  }));
  // Calls that talk to the broker, and the queue itself.
  wd_queue second = WD_QUEUE_INIT;
  EXPECT_EQ(wd_open(&second, "memory"), 0);
  wd_release_queue(&second);
  wd_request request{};
  request.opcode = WD_OP_CRC32C;
  request.src = "123456789";
  request.src_len = 9;
  wd_request* done = nullptr;
  ASSERT_EQ(wd_send(&queue, &request), 0);
  ASSERT_EQ(wd_recv_sync(&queue, &done), 1);
  EXPECT_EQ(done->status, TANDEM_STATUS_OK);
  wd_release_queue(&queue);
}

TEST_F(BrokerProtocol, DescriptorsWhereNoneAreDueAreClosedAndRefused) {
  RawClient client = connect();
  ASSERT_EQ(client.say_hello().header.status, 0);
  const long before = descriptors_of_broker();
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int round = 0; round < 200; ++round) {
    // One, a few, and more than anybody may send.
    for (const std::size_t count : {std::size_t{1}, std::size_t{4}, std::size_t{200}}) {
      const Answer answer = client.ask_header(TANDEM_MSG_STATS, sizeof(tandem_message_header),
                                              std::vector<int>(count, null.get()));
      ASSERT_TRUE(answer.any);
      ASSERT_EQ(answer.header.status, -EPROTO);
    }
  }
  // Six hundred messages with descriptors; the slack is for what engine threads open as they start.
  EXPECT_LT(descriptors_of_broker(), before + 32);
  EXPECT_EQ(client.ask_header(TANDEM_MSG_STATS, sizeof(tandem_message_header)).header.status, 0);
}

TEST_F(BrokerProtocol, QueuesOfOthersDoNotExist) {
  RawClient owner = connect();
  ASSERT_EQ(owner.say_hello().header.status, 0);
  tandem_open open{};
  std::strcpy(open.algorithm, "memory");
  open.depth = 16;
  const Answer opened = owner.ask(TANDEM_MSG_OPEN, open);
  ASSERT_EQ(opened.header.status, 0);
  tandem_open_reply queue{};
  std::memcpy(&queue, opened.body.data(), sizeof queue);
  RawClient other = connect();
  ASSERT_EQ(other.say_hello().header.status, 0);
  const tandem_map map{queue.queue, TANDEM_REGION_MMIO, queue.region_mmio_size};
  EXPECT_EQ(other.ask(TANDEM_MSG_MAP, map).header.status, -ENOENT);
  EXPECT_EQ(other.ask(TANDEM_MSG_PUT, tandem_queue_message{queue.queue, 0}).header.status, -ENOENT);
  EXPECT_EQ(owner.ask(TANDEM_MSG_MAP, map).header.status, 0);
  EXPECT_EQ(owner.ask(TANDEM_MSG_MAP, map).header.status, -EEXIST);
}

TEST_F(BrokerProtocol, AnAlgorithmWithoutEndIsRefused) {
  RawClient client = connect();
  ASSERT_EQ(client.say_hello().header.status, 0);
  tandem_open open{};
  std::memset(open.algorithm, 'x', sizeof open.algorithm);
  open.depth = 16;
  EXPECT_EQ(client.ask(TANDEM_MSG_OPEN, open).header.status, -EINVAL);
}

TEST_F(BrokerProtocol, AClientThatDoesNotReadIsDroppedAndHoldsUpNobody) {
  RawClient client = connect();
  ASSERT_EQ(client.say_hello().header.status, 0);
  tandem_message_header header{TANDEM_MSG_STATS, sizeof header, 0, 0};
  ::fcntl(client.fd(), F_SETFL, O_NONBLOCK);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  int error = 0;
  while (error == 0 || error == EAGAIN) {
    ASSERT_LT(std::chrono::steady_clock::now(), until)
        << "the broker keeps a client that never reads";
    error = client.send_bytes(&header, sizeof header);
  }
  EXPECT_TRUE(error == EPIPE || error == ECONNRESET) << std::strerror(error);
}

TEST_F(BrokerProtocol, ASecondBrokerAtTheSamePlaceDoesNotStart) {
  const std::string program = broker::program_path("tandemd");
  const pid_t second = ::fork();
  if (second == 0) {
    ::close(2);  // having nobody to tell is no reason to crash
    ::execl(program.c_str(), "tandemd", "--socket", broker_->socket_path().c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(second, &status, 0), second);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

}  // namespace
}  // namespace tandem::e2e
