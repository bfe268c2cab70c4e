// SPDX-License-Identifier: Apache-2.0
/// The broker in this process, where its events can be seen and its patience chosen.
#include "apps/broker/broker.hpp"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tests/e2e/raw_client.hpp"
#include "tests/e2e/silent_file.hpp"

namespace tandem::broker {
namespace {

using Clock = std::chrono::steady_clock;
using e2e::Answer;
using e2e::RawClient;
using std::chrono::milliseconds;
using std::chrono::seconds;

class BrokerHere : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(::mkdtemp(directory_.data()), nullptr);
    auto place = Place::listen(socket(), 0600);
    ASSERT_TRUE(place) << place.error();
    Options options;
    options.framework.engine_threads = 1;
    options.sweep_every = milliseconds(100);
    options.on_event = [this](const Event& event) {
      const MutexLock lock(mutex_);
      events_.push_back(event);
    };
    auto broker = Broker::create(std::move(*place), std::move(options));
    ASSERT_TRUE(broker);
    broker_ = std::move(*broker);
    server_ = std::thread([this] { EXPECT_TRUE(broker_->run()); });
  }
  void TearDown() override {
    if (broker_ == nullptr) return;
    broker_->stop();
    server_.join();
    broker_.reset();
    std::filesystem::remove_all(directory_);
  }

  std::string socket() const { return directory_ + "/broker.sock"; }
  std::vector<Event> events(Event::Kind kind) {
    const MutexLock lock(mutex_);
    std::vector<Event> found;
    std::copy_if(events_.begin(), events_.end(), std::back_inserter(found),
                 [&](const Event& event) { return event.kind == kind; });
    return found;
  }
  bool eventually(const std::function<bool()>& done) {
    const auto until = Clock::now() + seconds(60);
    while (!done()) {
      if (Clock::now() > until) return false;
      std::this_thread::sleep_for(milliseconds(2));
    }
    return true;
  }
  /// How long a newcomer waits for the answer to its HELLO.
  Clock::duration hello_takes() {
    RawClient client(socket());
    const auto start = Clock::now();
    EXPECT_EQ(client.say_hello().header.status, 0);
    return Clock::now() - start;
  }

  std::string directory_ = "/tmp/tandem-broker-XXXXXX";
  std::unique_ptr<Broker> broker_;
  std::thread server_;
  Mutex mutex_;
  std::vector<Event> events_ TANDEM_GUARDED_BY(mutex_);
};

TEST_F(BrokerHere, EndsAreReportedOfWhoItWasAlsoOfThoseThatHungUpDuringHello) {
  constexpr std::size_t kClients = 300;
  static std::array<std::uint8_t, 16> nonce;  // outlives its clients
  nonce.fill(0x5a);
  for (std::size_t i = 0; i < kClients; ++i) {
    RawClient client(socket());
    std::array<std::byte, sizeof(tandem_message_header) + sizeof(tandem_hello)> bytes{};
    const tandem_message_header header{TANDEM_MSG_HELLO, sizeof bytes, 1, 0};
    tandem_hello hello = client.good_hello();
    hello.nonce_address = reinterpret_cast<std::uint64_t>(nonce.data());
    std::memcpy(bytes.data(), &header, sizeof header);
    std::memcpy(bytes.data() + sizeof header, &hello, sizeof hello);
    const UniqueFd mem(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    const UniqueFd maps(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(client.send_bytes(bytes.data(), bytes.size(), {mem.get(), maps.get()}), 0);
    if (i % 2 == 0) client.receive();
  }
  EXPECT_TRUE(eventually([&] { return events(Event::Kind::kEnded).size() == kClients; }))
      << events(Event::Kind::kEnded).size();
  std::vector<std::uint32_t> numbers;
  for (const Event& event : events(Event::Kind::kEnded)) {
    EXPECT_EQ(event.pid, ::getpid());
    EXPECT_EQ(event.uid, ::getuid());
    EXPECT_NE(event.why, "");
    EXPECT_NE(event.client, 0u);
    numbers.push_back(event.client);
  }
  std::sort(numbers.begin(), numbers.end());
  EXPECT_EQ(std::unique(numbers.begin(), numbers.end()), numbers.end()) << "a number twice";
}

TEST_F(BrokerHere, WhoOpensAndClosesItsTokenAllTheTimeHoldsUpNobody) {
  // Several connections in turn: the kernel merges signs that follow each other and are the same.
  std::vector<RawClient> clients;
  std::vector<Answer> answers;
  std::vector<std::string> tokens;
  for (int i = 0; i < 16; ++i) {
    answers.push_back(clients.emplace_back(socket()).say_hello());
    ASSERT_EQ(answers.back().fds.size(), 2u);
    tokens.push_back("/proc/self/fd/" + std::to_string(answers.back().fds[1].get()));
  }
  std::vector<pid_t> flooders(2);
  for (pid_t& flooder : flooders) {
    flooder = ::fork();
    if (flooder != 0) continue;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      for (const auto& token : tokens) ::close(::open(token.c_str(), O_RDWR | O_CLOEXEC));
    }
  }
  // A broker that looks at each sign falls behind for good. One that does not may have to wait for
  // a CPU, but not always: half of some newcomers in turn are served soon.
  const auto typical = [this] {
    std::array<Clock::duration, 9> times;
    for (auto& time : times) time = hello_takes();
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  };
  std::this_thread::sleep_for(milliseconds(1000));  // the signs pile up
  bool soon = false;
  for (int i = 0; i < 10 && !soon; ++i) soon = typical() < milliseconds(250);
  for (const pid_t flooder : flooders) {
    ::kill(flooder, SIGKILL);
    ::waitpid(flooder, nullptr, 0);
  }
  EXPECT_TRUE(soon);
  // They live, for all their signs of death.
  for (RawClient& client : clients) {
    EXPECT_EQ(client.ask_header(TANDEM_MSG_STATS, sizeof(tandem_message_header)).header.status, 0);
  }
}

TEST_F(BrokerHere, AfterAFloodOfItsTokenTheRealEndIsFound) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  RawClient before(socket());
  const pid_t tenant = ::fork();
  if (tenant == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const Answer answer = before.say_hello();
    if (answer.fds.size() != 2) ::_exit(1);
    const std::string token = "/proc/self/fd/" + std::to_string(answer.fds[1].get());
    if (::write(ends[1], "r", 1) != 1) ::_exit(1);
    for (;;) ::close(::open(token.c_str(), O_RDWR | O_CLOEXEC));
  }
  char byte = 0;
  ASSERT_EQ(::read(ends[0], &byte, 1), 1);
  ::kill(tenant, SIGKILL);
  ::waitpid(tenant, nullptr, 0);
  EXPECT_TRUE(eventually([&] { return !events(Event::Kind::kEnded).empty(); }));
  for (const int fd : ends) ::close(fd);
}

TEST_F(BrokerHere, ANonceInAFileThatNeverAnswersIsRefusedAndHoldsUpNobody) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  e2e::SilentFile file;
  const pid_t tenant = ::fork();
  if (tenant == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::byte* const at = file.map_in_child();
    if (at == nullptr) ::_exit(77);
    const UniqueFd mem(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    const UniqueFd maps(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
    std::vector<RawClient> clients;
    for (int i = 0; i < 16; ++i) {
      RawClient& client = clients.emplace_back(socket());
      std::array<std::byte, sizeof(tandem_message_header) + sizeof(tandem_hello)> bytes{};
      const tandem_message_header header{TANDEM_MSG_HELLO, sizeof bytes, 1, 0};
      tandem_hello hello = client.good_hello();
      hello.nonce_address = reinterpret_cast<std::uint64_t>(at);
      std::memcpy(bytes.data(), &header, sizeof header);
      std::memcpy(bytes.data() + sizeof header, &hello, sizeof hello);
      if (client.send_bytes(bytes.data(), bytes.size(), {mem.get(), maps.get()}) != 0) ::_exit(1);
    }
    if (::write(ends[1], "r", 1) != 1) ::_exit(1);
    for (RawClient& client : clients) {
      const Answer answer = client.receive();
      if (!answer.any || answer.header.status != -EACCES) ::_exit(2);
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  file.drop_device();
  char byte = 0;
  const bool sent = ::read(ends[0], &byte, 1) == 1;
  ::close(ends[0]);
  if (sent) {
    bool soon = false;  // if not at once, where others have the CPUs
    for (int i = 0; i < 5 && !soon; ++i) soon = hello_takes() < seconds(5);
    EXPECT_TRUE(soon);
  }
  int status = -1;
  EXPECT_TRUE(eventually([&] { return ::waitpid(tenant, &status, WNOHANG) == tenant; }));
  file.end();
  if (!WIFEXITED(status)) {
    ::kill(tenant, SIGKILL);
    ::waitpid(tenant, nullptr, 0);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    GTEST_SKIP() << "no FUSE mount in an own namespace (needs root and /dev/fuse)";
  }
  EXPECT_EQ(status, 0);
}

TEST_F(BrokerHere, AnEndThatNothingTellsOfIsFoundByTheSweep) {
  // The parent has connected, so the kernel's pidfd is not the tenant's; a child of the tenant
  // holds the socket, and the token open for writing.
  RawClient client(socket());
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t tenant = ::fork();
  if (tenant == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const Answer answer = client.say_hello();
    if (answer.fds.size() != 2) ::_exit(1);
    const pid_t holder = ::fork();
    if (holder == 0) {
      for (;;) ::pause();
    }
    if (::write(ends[1], &holder, sizeof holder) != sizeof holder) ::_exit(1);
    for (;;) ::pause();
  }
  pid_t holder = -1;
  ASSERT_EQ(::read(ends[0], &holder, sizeof holder), static_cast<ssize_t>(sizeof holder));
  EXPECT_TRUE(events(Event::Kind::kEnded).empty());
  ::kill(tenant, SIGKILL);
  ::waitpid(tenant, nullptr, 0);
  EXPECT_TRUE(eventually([&] { return !events(Event::Kind::kEnded).empty(); }));
  const auto ended = events(Event::Kind::kEnded);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].pid, tenant);
  EXPECT_EQ(ended[0].why, "address space ended (sweep)");
  ::kill(holder, SIGKILL);
  for (const int fd : ends) ::close(fd);
}

}  // namespace
}  // namespace tandem::broker
