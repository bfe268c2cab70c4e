// SPDX-License-Identifier: Apache-2.0
// What becomes of a broker's clients where its memory runs out.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "apps/broker/broker.hpp"
#include "apps/broker/lane.hpp"
#include "tandem/base/test_no_memory.hpp"
#include "tests/e2e/raw_client.hpp"

namespace tandem::broker {
namespace {

using e2e::RawClient;
using std::chrono::seconds;

class NoMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!kRunsOut) GTEST_SKIP() << "AddressSanitizer's operators are in the way";
  }
};

TEST_F(NoMemory, ALaneGetsThroughTheTasksThatItHas) {
  Lane lane{{.threads_max = 1, .threads_per_account = 1}};
  std::atomic<int> done{0};
  lane.run(1, [] { allocations_left = 0; });
  for (int i = 0; i < 2000; ++i) lane.run(1, [&] { ++done; });
  ASSERT_TRUE(lane.stop(seconds(20)));
  EXPECT_EQ(done, 2000);
}

TEST_F(NoMemory, ATaskThatCannotBeHandedOverChangesNothing) {
  Lane lane{{}};
  std::atomic<int> done{0};
  int lacked = 0;
  for (std::uint32_t account = 0; account < 50; ++account) {
    for (int left = 0;; ++left) {
      std::function<void()> task = [&] { ++done; };
      allocations_left = left;
      try {
        lane.run(account, std::move(task));
        allocations_left = INT_MAX;
        break;
      } catch (const std::bad_alloc&) {
        allocations_left = INT_MAX;
        ++lacked;
      }
    }
  }
  EXPECT_GT(lacked, 0);
  ASSERT_TRUE(lane.stop(seconds(20)));
  EXPECT_EQ(done, 50);
}

class BrokerWithoutMemory : public NoMemory {
 protected:
  void SetUp() override {
    NoMemory::SetUp();
    if (IsSkipped()) return;
    ASSERT_NE(::mkdtemp(directory_.data()), nullptr);
    auto place = Place::listen(socket(), 0600);
    ASSERT_TRUE(place) << place.error();
    Options options;
    options.framework.engine_threads = 1;
    options.framework.queues_per_tenant = 8;
    options.sweep_every = std::chrono::milliseconds(20);
    // The thread that tells of something lacks memory for once, a little later.
    options.on_event = [this](const Event& event) {
      if (event.kind == Event::Kind::kEnded) ++ended_;
      if (event.kind == Event::Kind::kConnected) ++connected_;
      if (lacks_ < 0) return;
      lacks_once = true;
      allocations_left = lacks_;
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

  /// Whether a client gets all that it asks for.
  bool serves() {
    RawClient client(socket());
    const auto hello = client.say_hello();
    if (!hello.any || hello.header.status != 0) return false;
    const tandem_open open{"mem-0", 64, 0};
    const auto opened = client.ask(TANDEM_MSG_OPEN, open);
    if (!opened.any || opened.header.status != 0) return false;
    tandem_open_reply queue{};
    std::memcpy(&queue, opened.body.data(), std::min(sizeof queue, opened.body.size()));
    const auto put = client.ask(TANDEM_MSG_PUT, tandem_queue_message{queue.queue, 0});
    return put.any && put.header.status == 0;
  }

  std::string directory_ = "/tmp/tandem-broker-XXXXXX";
  std::unique_ptr<Broker> broker_;
  std::thread server_;
  std::atomic<int> lacks_{-1}, connected_{0}, ended_{0};
};

TEST_F(BrokerWithoutMemory, AnAllocationThatFailsCostsNobodyButItsClient) {
  RawClient stays(socket());  // so that what its tenant may have is not forgotten
  ASSERT_EQ(stays.say_hello().header.status, 0);
  int refused = 0;
  for (int left = 0; left < 60; ++left) {
    lacks_ = left;
    for (int i = 0; i < 3; ++i) refused += serves() ? 0 : 1;
  }
  EXPECT_GT(refused, 0);
  lacks_ = -1;
  // A thread that lacked nothing yet may do so still. Whose client has ended has no queue any more.
  const auto all_ended = [this] {
    while (ended_ + 1 < connected_) std::this_thread::yield();
    return true;
  };
  int more = 0;
  while (all_ended() && !serves() && more < 100) ++more;
  EXPECT_LT(more, 100);
  all_ended();
  int status = -ENOMEM;
  while (status == -ENOMEM) {
    status = stays.ask_header(TANDEM_MSG_STATS, sizeof(tandem_message_header)).header.status;
  }
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace tandem::broker
