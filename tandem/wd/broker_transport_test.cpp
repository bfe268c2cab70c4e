// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/broker_transport.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/wd/detail/route.hpp"
#include "tandem/wd/detail/trust.hpp"
#include "tandem/wd/wd.h"

namespace tandem::wd::detail {
namespace {

struct Message {
  tandem_message_header header{};
  std::vector<std::byte> body;
  std::vector<UniqueFd> fds;

  template <class T>
  T as() const {
    T value{};
    std::memcpy(&value, body.data(), std::min(body.size(), sizeof value));
    return value;
  }
  template <class T>
  void set(const T& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    body.assign(bytes.begin(), bytes.end());
  }
};

/// The other end of one connection, which answers as a test tells it.
class FakeBroker {
 public:
  using Answer = std::function<Message(const Message&)>;
  using Answers = std::function<std::vector<Message>(const Message&)>;

  explicit FakeBroker(Answer answer)
      : FakeBroker(Answers([answer = std::move(answer)](const Message& request) {
          std::vector<Message> one;
          one.push_back(answer(request));
          return one;
        })) {}
  /// With any number of messages for one request, or none.
  explicit FakeBroker(Answers answers) : answers_(std::move(answers)) {
    std::array<char, 32> name{"/tmp/tandem-wd-test-XXXXXX"};
    directory_ = ::mkdtemp(name.data());
    listener_ = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path().c_str());
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 4), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeBroker() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    ::unlink(path().c_str());
    ::rmdir(directory_.c_str());
  }
  std::string path() const { return directory_ + "/broker.sock"; }
  const std::string& directory() const { return directory_; }

  /// What a well-behaved broker says to HELLO.
  static Message welcome(const Message& request) {
    Message reply;
    reply.header = request.header;
    reply.set(tandem_hello_reply{TANDEM_PROTOCOL_MAX, 0, 1, 1});
    reply.fds.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    reply.fds.emplace_back(::memfd_create("wd-test-token", MFD_CLOEXEC));
    return reply;
  }

 private:
  void serve() {
    const UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    while (client) {
      auto request = receive(client.get());
      if (!request) return;
      for (Message& reply : answers_(*request)) {
        if (reply.header.type == 0) return;  // hangs up
        send(client.get(), reply);
      }
    }
  }
  static std::optional<Message> receive(int socket) {
    std::array<std::byte, 1024> buffer;
    alignas(cmsghdr) std::array<char, 256> control{};
    iovec part{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (size < static_cast<ssize_t>(sizeof(tandem_message_header))) return std::nullopt;
    Message got;
    std::memcpy(&got.header, buffer.data(), sizeof got.header);
    got.body.assign(buffer.begin() + sizeof got.header, buffer.begin() + size);
    for (cmsghdr* at = CMSG_FIRSTHDR(&message); at != nullptr; at = CMSG_NXTHDR(&message, at)) {
      const std::size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(at) + i * sizeof fd, sizeof fd);
        got.fds.emplace_back(fd);
      }
    }
    return got;
  }
  static void send(int socket, Message& reply) {
    if (reply.header.status >= 0 && reply.header.size != 1) {  // 1: the test wants a wrong size
      reply.header.size = static_cast<std::uint32_t>(sizeof reply.header + reply.body.size());
    }
    iovec parts[] = {{&reply.header, sizeof reply.header}, {reply.body.data(), reply.body.size()}};
    alignas(cmsghdr) std::array<char, 256> control{};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    if (!reply.fds.empty()) {
      const std::size_t bytes = reply.fds.size() * sizeof(int);
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(bytes);
      cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(bytes);
      for (std::size_t i = 0; i < reply.fds.size(); ++i) {
        const int fd = reply.fds[i].get();
        std::memcpy(CMSG_DATA(rights) + i * sizeof fd, &fd, sizeof fd);
      }
    }
    ::sendmsg(socket, &message, MSG_NOSIGNAL);
  }

  const Answers answers_;
  std::string directory_;
  UniqueFd listener_;
  std::thread thread_;
};

/// Whether a descriptor of this process leads to a path that contains `text`.
bool some_descriptor_is(const std::string& text) {
  bool found = false;
  DIR* const directory = ::opendir("/proc/self/fd");
  while (const dirent* const entry = ::readdir(directory)) {
    std::array<char, 256> target{};
    const auto path = std::string("/proc/self/fd/") + entry->d_name;
    if (::readlink(path.c_str(), target.data(), target.size() - 1) > 0) {
      found = found || std::string(target.data()).find(text) != std::string::npos;
    }
  }
  ::closedir(directory);
  return found;
}

bool mapped(const std::string& text) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(text) != std::string::npos) return true;
  }
  return false;
}

TEST(BrokerTransport, HelloHandsOverThisAddressSpaceAndKeepsNoDescriptorOfIt) {
  bool nonce_matches = false, is_maps = false;
  FakeBroker broker([&](const Message& request) {
    const auto hello = request.as<tandem_hello>();
    if (request.fds.size() == 2) {
      std::array<std::uint8_t, 16> nonce{};
      const auto read = ::pread(request.fds[0].get(), nonce.data(), nonce.size(),
                                static_cast<off_t>(hello.nonce_address));
      nonce_matches = read == 16 && std::memcmp(nonce.data(), hello.nonce, 16) == 0;
      char c = 0;
      is_maps = ::pread(request.fds[1].get(), &c, 1, 0) == 1;
    }
    return FakeBroker::welcome(request);
  });
  Ledger ledger;
  {
    auto transport = BrokerTransport::create(broker.path(), ledger);
    ASSERT_TRUE(transport) << transport.error().message();
    EXPECT_TRUE((*transport)->reaches_ordinary_memory());
    EXPECT_TRUE((*transport)->alive());
    EXPECT_TRUE(nonce_matches);
    EXPECT_TRUE(is_maps);
    EXPECT_TRUE(mapped("wd-test-token"));
    // The broker's end is of this process too, and lets go of its own in a moment.
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (some_descriptor_is("/mem") && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
    EXPECT_FALSE(some_descriptor_is("/mem"));
  }
  EXPECT_FALSE(mapped("wd-test-token"));
}

TEST(BrokerTransport, ReservedOnlyTierSendsNoDescriptor) {
  ::setenv("TANDEM_TRUST", "reserved-only", 1);
  std::size_t fds = 99;
  std::uint32_t flags = 0;
  FakeBroker broker([&](const Message& request) {
    fds = request.fds.size();
    flags = request.as<tandem_hello>().flags;
    return FakeBroker::welcome(request);
  });
  Ledger ledger;
  auto transport = BrokerTransport::create(broker.path(), ledger);
  ::unsetenv("TANDEM_TRUST");
  ASSERT_TRUE(transport);
  EXPECT_EQ(fds, 0u);
  EXPECT_NE(flags & TANDEM_HELLO_RESERVED_ONLY, 0u);
  EXPECT_FALSE((*transport)->reaches_ordinary_memory());
}

TEST(BrokerTransport, WelcomeThatMakesNoSenseIsAProtocolError) {
  const std::vector<std::function<void(Message&)>> spoilers = {
      [](Message& reply) { reply.header.size = 1; },
      [](Message& reply) { reply.body.pop_back(); },
      [](Message& reply) { reply.fds.pop_back(); },
      [](Message& reply) { reply.header.status = 5; },
      [](Message& reply) {
        reply.set(tandem_hello_reply{TANDEM_PROTOCOL_MAX + 1, 0, 1, 1});
      },
      [](Message& reply) { reply.fds.emplace_back(::eventfd(0, EFD_CLOEXEC)); },
  };
  for (const auto& spoil : spoilers) {
    FakeBroker broker([&spoil](const Message& request) {
      Message reply = FakeBroker::welcome(request);
      spoil(reply);
      return reply;
    });
    Ledger ledger;
    const auto transport = BrokerTransport::create(broker.path(), ledger);
    ASSERT_FALSE(transport);
    EXPECT_EQ(transport.error().value(), EPROTO);
  }
}

TEST(BrokerTransport, ErrorAnswersAreErrnosAndChangeNothing) {
  FakeBroker broker([](const Message& request) {
    if (request.header.type == TANDEM_MSG_HELLO) return FakeBroker::welcome(request);
    Message reply;
    reply.header = request.header;
    reply.header.size = sizeof reply.header;
    if (request.header.type == TANDEM_MSG_OPEN) reply.header.status = -EMFILE;
    return reply;
  });
  Ledger ledger;
  auto transport = BrokerTransport::create(broker.path(), ledger);
  ASSERT_TRUE(transport);
  const auto refused = (*transport)->open("gzip", 16);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().value(), EMFILE);
  EXPECT_TRUE((*transport)->alive());
  EXPECT_TRUE((*transport)->start(1));
}

int open_descriptors() {
  int count = 0;
  DIR* const directory = ::opendir("/proc/self/fd");
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

/// Waits until as many descriptors are open as one connection needs, both ends of it, besides
/// `before`.
bool only_a_connection_is_open(int before) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (open_descriptors() != before + 4) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

Message answer_to(const Message& request, std::int32_t status = 0) {
  Message reply;
  reply.header = request.header;
  reply.header.size = sizeof reply.header;
  reply.header.status = status;
  return reply;
}

TEST(BrokerTransport, AnswersThatAreNotOursAreSkippedAndTheirDescriptorsClosed) {
  const int before = open_descriptors();
  // What a forked child provokes that writes to the socket it has inherited.
  FakeBroker broker(FakeBroker::Answers([](const Message& request) {
    std::vector<Message> replies;
    for (const std::uint32_t distance : {1000u, ~0u, 1u}) {
      replies.push_back(answer_to(request, -EPERM));
      replies.back().header.sequence += distance;
    }
    replies.push_back(answer_to(request, -EPERM));
    replies.back().header.type = TANDEM_MSG_DETACH;
    replies.push_back(answer_to(request));
    replies.back().header.sequence = 0;
    replies.back().fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
    replies.back().fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
    const bool hello = request.header.type == TANDEM_MSG_HELLO;
    replies.push_back(hello ? FakeBroker::welcome(request) : answer_to(request));
    return replies;
  }));
  Ledger ledger;
  auto transport = BrokerTransport::create(broker.path(), ledger);
  ASSERT_TRUE(transport) << transport.error().message();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE((*transport)->start(1));
  EXPECT_TRUE((*transport)->alive());
  EXPECT_TRUE(only_a_connection_is_open(before));
}

/// Runs `scenario` with that much patience for each answer, and with more where it does not hold:
/// what is answered at once comes late where threads wait for a CPU.
template <class Scenario>
void expect_with_patience(Scenario scenario) {
  if (scenario(std::chrono::milliseconds(500)) == "") return;
  EXPECT_EQ(scenario(std::chrono::seconds(10)), "");
}

bool timed_out(const auto& result) { return !result && result.error().value() == ETIMEDOUT; }

TEST(BrokerTransport, TooManyForeignMessagesStillEndInTime) {
  expect_with_patience([](std::chrono::milliseconds patience) -> std::string {
    FakeBroker broker(FakeBroker::Answers([](const Message& request) {
      std::vector<Message> replies;
      if (request.header.type == TANDEM_MSG_HELLO) {
        replies.push_back(FakeBroker::welcome(request));
      } else {
        for (int i = 0; i < 20; ++i) {
          replies.push_back(answer_to(request));
          replies.back().header.sequence += 7;
        }
      }
      return replies;
    }));
    Ledger ledger;
    const auto transport = BrokerTransport::create(broker.path(), ledger, patience);
    if (!transport) return transport.error().message();
    if (!timed_out((*transport)->start(1))) return "no time-out";
    return (*transport)->alive() ? "" : "it is dead";
  });
}

/// Keeps the answers to some requests until it is asked for something else.
class LateBroker {
 public:
  std::vector<Message> operator()(const Message& request) {
    std::vector<Message> replies;
    switch (request.header.type) {
      case TANDEM_MSG_HELLO:
        replies.push_back(FakeBroker::welcome(request));
        break;
      case TANDEM_MSG_EVENT:
        late_.push_back(answer_to(request));
        late_.back().fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
        break;
      case TANDEM_MSG_OPEN:
        late_.push_back(answer_to(request));
        late_.back().set(tandem_open_reply{"late", 77, 4, 0, 0, 0, 0});
        break;
      case TANDEM_MSG_RESERVE:
        late_.push_back(answer_to(request));
        late_.back().set(tandem_reserve_reply{88, 4096});
        late_.back().fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
        break;
      case TANDEM_MSG_PUT:
        given_back.push_back(request.as<tandem_queue_message>().queue);
        replies.push_back(answer_to(request));
        break;
      case TANDEM_MSG_RELEASE:
        given_back.push_back(static_cast<std::uint32_t>(request.as<tandem_attach>().id));
        replies.push_back(answer_to(request));
        break;
      default:
        replies = std::exchange(late_, {});
        replies.push_back(answer_to(request));
    }
    return replies;
  }
  std::vector<std::uint32_t> given_back;

 private:
  std::vector<Message> late_;
};

TEST(BrokerTransport, TimeOutIsOfOneRequestAndItsLateAnswerIsSkipped) {
  expect_with_patience([](std::chrono::milliseconds patience) -> std::string {
    const int before = open_descriptors();
    LateBroker late;
    FakeBroker broker(FakeBroker::Answers([&](const Message& request) { return late(request); }));
    Ledger ledger;
    const auto made = BrokerTransport::create(broker.path(), ledger, patience);
    if (!made) return made.error().message();
    Transport& transport = **made;
    if (!timed_out(transport.event(1)) || !timed_out(transport.open("gzip", 4)) ||
        !timed_out(transport.reserve(4096))) {
      return "no time-out";
    }
    if (!transport.alive()) return "it is dead";
    if (!transport.start(1) || !transport.put(5)) {
      return "others do not go on, behind the late answers";
    }
    if (late.given_back != std::vector<std::uint32_t>{77, 88, 5}) return "something is kept";
    return only_a_connection_is_open(before) ? "" : "a descriptor is left open";
  });
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
TEST(BrokerTransport, AnotherProcessOfTheSameMemoryIsRefusedAtOnce) {
  FakeBroker broker([](const Message& request) {
    return request.header.type == TANDEM_MSG_HELLO ? FakeBroker::welcome(request)
                                                   : answer_to(request);
  });
  Ledger ledger;
  auto transport = BrokerTransport::create(broker.path(), ledger).value();
  alignas(16) static std::array<char, 256 * 1024> stack;
  const auto ask = [](void* argument) {
    auto& shared = *static_cast<std::unique_ptr<Transport>*>(argument);
    ::_exit(shared->start(1).error().value() == EPERM ? 0 : 1);
    return 1;
  };
  const pid_t child =
      ::clone(ask, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | SIGCHLD, &transport);
  ASSERT_GT(child, 0);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(transport->start(1));
}
#endif

TEST(BrokerTransport, HangUpIsNoticed) {
  FakeBroker broker([](const Message& request) {
    return request.header.type == TANDEM_MSG_HELLO ? FakeBroker::welcome(request) : Message{};
  });
  Ledger ledger;
  auto transport = BrokerTransport::create(broker.path(), ledger);
  ASSERT_TRUE(transport);
  const auto lost = (*transport)->stats();
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().value(), ESHUTDOWN);
  EXPECT_FALSE((*transport)->alive());
  EXPECT_EQ((*transport)->start(1).error().value(), ESHUTDOWN);
}

TEST(Trust, OnlyPrivatePlacesAndTrustedPeersAreConnectedTo) {
  FakeBroker broker(&FakeBroker::welcome);
  EXPECT_EQ(connect_to_trusted(broker.directory() + "/nothing").error().value(), ENOENT);
  EXPECT_EQ(connect_to_trusted(broker.directory() + "/").error().value(), EINVAL);

  const auto file = broker.directory() + "/file";
  std::ofstream(file) << "x";
  EXPECT_EQ(connect_to_trusted(file).error().value(), EACCES) << "not a socket";
  ::unlink(file.c_str());
  ASSERT_EQ(::symlink(broker.path().c_str(), file.c_str()), 0);
  EXPECT_EQ(connect_to_trusted(file).error().value(), EACCES) << "a link";
  ::unlink(file.c_str());

  for (const mode_t mode : {0720u, 0702u, 0777u, 01777u}) {
    ::chmod(broker.directory().c_str(), mode);
    EXPECT_EQ(connect_to_trusted(broker.path()).error().value(), EACCES) << std::oct << mode;
  }
  ::chmod(broker.directory().c_str(), 0755);
  EXPECT_TRUE(connect_to_trusted(broker.path()));
}

class Environment : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const char* name : {"TANDEM", "TANDEM_TRUST", "TANDEM_TRUST_UID", "XDG_RUNTIME_DIR"}) {
      ::unsetenv(name);
    }
  }
};

TEST_F(Environment, TrustThatIsMisspeltReachesNoBroker) {
  for (const char* nonsense : {"reserved_only", "none"}) {
    ::setenv("TANDEM_TRUST", nonsense, 1);
    EXPECT_FALSE(memory_may_be_sent()) << nonsense;
    for (const auto path : {WD_PATH_AUTO, WD_PATH_BROKER}) {
      const auto routes = choose_routes(path);
      ASSERT_FALSE(routes) << nonsense;
      EXPECT_EQ(routes.error().value(), EINVAL);
    }
    EXPECT_TRUE(choose_routes(WD_PATH_INLINE)) << "asks no broker";
  }
  ::setenv("TANDEM", "embedded", 1);
  EXPECT_TRUE(choose_routes(WD_PATH_AUTO)) << "asks no broker";
  ::unsetenv("TANDEM");
  for (const char* good : {"", "reserved-only"}) {
    ::setenv("TANDEM_TRUST", good, 1);
    EXPECT_TRUE(choose_routes(WD_PATH_AUTO)) << good;
  }
  EXPECT_FALSE(memory_may_be_sent());

  for (const char* nonsense : {"nobody", "-1", "1000 "}) {
    ::setenv("TANDEM_TRUST_UID", nonsense, 1);
    EXPECT_FALSE(choose_routes(WD_PATH_AUTO)) << nonsense;
  }
  ::setenv("TANDEM_TRUST_UID", "1000", 1);
  EXPECT_TRUE(choose_routes(WD_PATH_AUTO));
}

TEST_F(Environment, ADirectoryOfTheTrustedUserIsAGoodPlace) {
  FakeBroker broker(&FakeBroker::welcome);
  if (::chown(broker.directory().c_str(), 4242, static_cast<gid_t>(-1)) != 0) {
    GTEST_SKIP() << "may not give a directory away: " << std::strerror(errno);
  }
  EXPECT_EQ(connect_to_trusted(broker.path()).error().value(), EACCES);
  ::setenv("TANDEM_TRUST_UID", "4243", 1);
  EXPECT_EQ(connect_to_trusted(broker.path()).error().value(), EACCES);
  ::setenv("TANDEM_TRUST_UID", "4242", 1);
  EXPECT_TRUE(connect_to_trusted(broker.path()));
}

TEST_F(Environment, RoutesFollowTandemAndTheQueuesWish) {
  ::setenv("XDG_RUNTIME_DIR", "/run/user/42", 1);
  const auto automatic = choose_routes(WD_PATH_AUTO);
  ASSERT_TRUE(automatic);
  ASSERT_EQ(automatic->candidates.size(), 3u);
  EXPECT_EQ(automatic->candidates[0].socket, "/run/user/42/tandem/broker.sock");
  EXPECT_EQ(automatic->candidates[1].socket, "/run/tandem/broker.sock");
  EXPECT_NE(automatic->candidates[2].path, WD_PATH_BROKER);
  EXPECT_FALSE(automatic->explicit_choice);
  EXPECT_EQ(choose_routes(WD_PATH_BROKER)->candidates.size(), 2u);

  ::setenv("TANDEM", "unix:/a/b", 1);
  EXPECT_EQ(choose_routes(WD_PATH_AUTO)->candidates.at(0).socket, "/a/b");
  EXPECT_TRUE(choose_routes(WD_PATH_BROKER)->explicit_choice);
  EXPECT_EQ(choose_routes(WD_PATH_INLINE)->candidates.at(0).path, WD_PATH_INLINE);
  ::setenv("TANDEM", "inline", 1);
  EXPECT_EQ(choose_routes(WD_PATH_AUTO)->candidates.at(0).path, WD_PATH_INLINE);
  EXPECT_EQ(choose_routes(WD_PATH_EMBEDDED)->candidates.at(0).path, WD_PATH_EMBEDDED);
  for (const char* nonsense : {"unix:", "Inline", "broker"}) {
    ::setenv("TANDEM", nonsense, 1);
    EXPECT_FALSE(choose_routes(WD_PATH_AUTO)) << nonsense;
  }
  EXPECT_FALSE(choose_routes(99));
}

TEST_F(Environment, BrokerThatIsNotThereIsSaidSo) {
  ::setenv("TANDEM", "unix:/tmp/no-such-directory/broker.sock", 1);
  wd_queue q = WD_QUEUE_INIT;
  q.algorithm = "gzip";
  EXPECT_EQ(wd_request_queue(&q), -ECONNREFUSED);
}

}  // namespace
}  // namespace tandem::wd::detail
