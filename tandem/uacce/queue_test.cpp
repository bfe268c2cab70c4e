// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <poll.h>

#include <cerrno>
#include <new>
#include <random>
#include <set>

#include "tandem/uacce/detail/raw_queue.hpp"
#include "tandem/uacce/detail/test_engine.hpp"

namespace tandem::uacce {
namespace {

using detail::RawQueue;
using detail::TestEngine;

class QueueTest : public testing::TestWithParam<int> {
 protected:
  QueueTest() {
    Framework::Options options;
    options.engine_threads = GetParam();
    options.queues_per_tenant = 4096;
    options.spin_before_park = std::chrono::microseconds(20);
    auto created = Framework::create(options);
    TANDEM_CHECK(created);
    framework = std::move(*created);
    TANDEM_CHECK(framework->add_device(
        std::make_unique<TestEngine>("test-0", [](const tandem_descriptor& descriptor) {
          Completion completion;
          completion.result = descriptor.operand;
          completion.done = descriptor.src_len;
          completion.bytes_copied = descriptor.src_len;
          return completion;
        })));
    auto connected = framework->connect(1, {});
    TANDEM_CHECK(connected);
    client = std::move(*connected);
  }

  int error_of(const Result<void>& result) { return result ? 0 : result.error().value(); }
  template <class T>
  int error_of(const Result<T>& result) {
    return result ? 0 : result.error().value();
  }
  /// The next completion, running the queue here when nobody else does.
  std::optional<tandem_completion> next(RawQueue& queue) {
    if (GetParam() == 0) (void)client->run_in_caller(queue.id());
    return queue.wait();
  }
  /// Waits until the queue is dead.
  std::uint32_t death(RawQueue& queue) {
    if (GetParam() == 0) (void)client->run_in_caller(queue.id());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (queue.state() == 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
    return queue.state();
  }

  std::unique_ptr<Framework> framework;
  std::unique_ptr<Client> client;
};

INSTANTIATE_TEST_SUITE_P(Threads, QueueTest, testing::Values(0, 1, 2), [](const auto& chosen) {
  return "Engines" + std::to_string(chosen.param);
});

TEST_P(QueueTest, RegionsAreGivenOutOnceAtTheirSize) {
  auto info = client->open("test", 64);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->device, "test-0");
  EXPECT_EQ(info->region_dus_size, 8192u);
  const auto queue = info->queue;
  EXPECT_EQ(error_of(client->map(queue, TANDEM_REGION_DUS, 4096)), EINVAL);
  EXPECT_EQ(error_of(client->map(queue, TANDEM_REGION_DUS, 8193)), EINVAL);
  EXPECT_EQ(error_of(client->map(queue, TANDEM_REGION_SS, 4096)), EINVAL);
  EXPECT_EQ(error_of(client->map(queue, 77, 4096)), EINVAL);
  EXPECT_EQ(error_of(client->map(queue + 1000, TANDEM_REGION_DUS, 8192)), ENOENT);
  EXPECT_TRUE(client->map(queue, TANDEM_REGION_DUS, 8192));
  EXPECT_EQ(error_of(client->map(queue, TANDEM_REGION_DUS, 8192)), EEXIST);
  EXPECT_TRUE(client->map(queue, TANDEM_REGION_MMIO, 4096));
  EXPECT_EQ(error_of(client->map(queue, TANDEM_REGION_MMIO, 4096)), EEXIST);
}

TEST_P(QueueTest, StatesGoFromInitOverStartedToZombie) {
  auto info = client->open("test-0", 64);
  ASSERT_TRUE(info);
  const auto queue = info->queue;
  EXPECT_TRUE(client->start(queue));
  EXPECT_EQ(error_of(client->start(queue)), EINVAL);
  EXPECT_TRUE(client->put(queue));
  EXPECT_TRUE(client->put(queue));
  EXPECT_EQ(error_of(client->start(queue)), EINVAL);
  EXPECT_EQ(error_of(client->map(queue, TANDEM_REGION_MMIO, 4096)), EINVAL);
  EXPECT_EQ(error_of(client->hold(queue, true)), EINVAL);
  EXPECT_EQ(error_of(client->event(queue)), EINVAL);
  EXPECT_EQ(error_of(client->put(queue + 1)), ENOENT);
}

TEST_P(QueueTest, BadDepthsAndUnknownAlgorithmsAreRefused) {
  for (const std::uint32_t depth : {0u, 1u, 3u, 131072u}) {
    EXPECT_EQ(error_of(client->open("test", depth)), EINVAL) << depth;
  }
  EXPECT_EQ(error_of(client->open("no such", 64)), ENOENT);
}

TEST_P(QueueTest, NopsCompleteInOrderOverManyPasses) {
  RawQueue queue(*client, "test", 8);
  for (std::uint64_t tag = 0; tag < 1000; ++tag) {
    queue.submit(TANDEM_OP_NOP, tag);
    const auto completion = next(queue);
    ASSERT_TRUE(completion) << tag;
    EXPECT_EQ(completion->tag, tag);
    EXPECT_EQ(completion->status, TANDEM_STATUS_OK);
  }
}

TEST_P(QueueTest, EngineAnswersReachTheCompletion) {
  RawQueue queue(*client, "test");
  queue.submit(TestEngine::kOperate, 7, 100, 42);
  const auto completion = next(queue);
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->tag, 7u);
  EXPECT_EQ(completion->result, 42u);
  EXPECT_EQ(completion->done, 100u);
  ASSERT_TRUE(client->put(queue.id()));
  const auto stats = client->stats();
  EXPECT_EQ(stats.operations, 1u);
  EXPECT_EQ(stats.bytes_copied, 100u);
  EXPECT_EQ(framework->devices().at(0).operations, 1u);
  EXPECT_EQ(framework->devices().at(0).bytes, 100u);
}

TEST_P(QueueTest, UnknownOpcodesAndReservedBitsAreAnswered) {
  RawQueue queue(*client, "test");
  queue.submit(0x0fff, 1);
  EXPECT_EQ(next(queue)->status, TANDEM_STATUS_UNKNOWN_OPCODE);
  for (int i = 0; i < 3; ++i) {
    tandem_descriptor descriptor{};
    descriptor.opcode = TANDEM_OP_NOP;
    if (i == 0) descriptor.flags = 0x8000;
    if (i == 1) descriptor.reserved[0] = 1;
    if (i == 2) descriptor.reserved[1] = std::uint64_t{1} << 63;
    queue.write(descriptor);
    queue.publish();
    EXPECT_EQ(next(queue)->status, TANDEM_STATUS_BAD_DESCRIPTOR) << i;
  }
}

TEST_P(QueueTest, AnEngineThatThrowsCostsOneOperation) {
  auto engine = std::make_unique<TestEngine>("throws", [](const tandem_descriptor& descriptor) {
    if (descriptor.operand == 1) throw std::bad_alloc();
    if (descriptor.operand == 2) throw std::string("anything");
    return Completion{};
  });
  engine->failing_workers = 1;
  ASSERT_TRUE(framework->add_device(std::move(engine)));
  RawQueue queue(*client, "throws");
  // The first finds no worker, two throw themselves, and the last is none the worse for it.
  const std::pair<std::uint64_t, std::uint16_t> expected[] = {{0, TANDEM_STATUS_FAULT},
                                                              {1, TANDEM_STATUS_FAULT},
                                                              {2, TANDEM_STATUS_FAULT},
                                                              {3, TANDEM_STATUS_OK}};
  for (const auto& [operand, status] : expected) {
    queue.submit(TestEngine::kOperate, operand, 0, operand);
    const auto completion = next(queue);
    ASSERT_TRUE(completion);
    EXPECT_EQ(completion->tag, operand);
    EXPECT_EQ(completion->status, status);
    EXPECT_EQ(completion->fault_address, 0u);
  }
}

TEST_P(QueueTest, AHoleInTheRingReadsAsUnknownOpcode) {
  RawQueue queue(*client, "test", 64);
  ASSERT_EQ(::fallocate(queue.rings_fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192), 0);
  tandem_descriptor empty{};
  queue.write(empty);
  queue.publish();
  const auto completion = next(queue);
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->status, TANDEM_STATUS_UNKNOWN_OPCODE);
  EXPECT_EQ(completion->tag, 0u);
}

TEST_P(QueueTest, ATailBeyondTheRingKillsOnlyThisQueue) {
  RawQueue bad(*client, "test", 64);
  RawQueue good(*client, "test", 64);
  RawQueue::word(bad.doorbell().tail).store(65, std::memory_order_release);
  bad.submit(TANDEM_OP_NOP, 1);  // tail goes back to 1: may be run, or the queue died before
  RawQueue::word(bad.doorbell().tail).store(5000, std::memory_order_release);
  auto wake = client->wake_descriptor();
  ASSERT_TRUE(wake);
  (void)::eventfd_write(wake->get(), 1);
  EXPECT_EQ(death(bad), TANDEM_QUEUE_BAD_TAIL);
  EXPECT_EQ(error_of(client->map(bad.id(), TANDEM_REGION_MMIO, 4096)), EINVAL);
  good.submit(TANDEM_OP_NOP, 2);
  EXPECT_EQ(next(good)->tag, 2u);
  EXPECT_TRUE(client->put(bad.id()));
  EXPECT_EQ(bad.state(), TANDEM_QUEUE_BAD_TAIL);  // left ALIVE once
}

TEST_P(QueueTest, DescriptorsSubmittedBeforeStartRun) {
  RawQueue queue(*client, "test", 64, false);
  queue.submit(TANDEM_OP_NOP, 9);
  ASSERT_TRUE(client->start(queue.id()));
  EXPECT_EQ(next(queue)->tag, 9u);
}

TEST_P(QueueTest, PutReportsDeathAndRunsNothingAfterwards) {
  RawQueue queue(*client, "test", 64);
  queue.submit(TANDEM_OP_NOP, 1);
  ASSERT_TRUE(next(queue));
  ASSERT_TRUE(client->put(queue.id()));
  EXPECT_EQ(queue.state(), TANDEM_QUEUE_PUT);
  queue.submit(TANDEM_OP_NOP, 2);
  EXPECT_FALSE(queue.wait(std::chrono::milliseconds(20)));
}

TEST_P(QueueTest, ASleepingClientIsWokenByCompletionAndByDeath) {
  if (GetParam() == 0) GTEST_SKIP() << "nobody else completes";
  RawQueue queue(*client, "test", 64);
  for (std::uint64_t tag = 0; tag < 400; ++tag) {
    queue.submit(TANDEM_OP_NOP, tag);
    const auto completion = queue.sleep();
    ASSERT_TRUE(completion);
    EXPECT_EQ(completion->tag, tag);
  }
  std::jthread putter([&] { (void)client->put(queue.id()); });
  EXPECT_FALSE(queue.sleep());
  EXPECT_EQ(queue.state(), TANDEM_QUEUE_PUT);
}

TEST_P(QueueTest, TheEventDescriptorBecomesReadable) {
  if (GetParam() == 0) GTEST_SKIP() << "nobody else completes";
  RawQueue queue(*client, "test", 64);
  auto event = client->event(queue.id());
  ASSERT_TRUE(event);
  EXPECT_EQ(error_of(client->event(queue.id())), EEXIST);
  RawQueue::word(queue.doorbell().waiting).store(TANDEM_WAIT_FD, std::memory_order_relaxed);
  full_fence();
  pollfd wait{event->get(), POLLIN, 0};
  queue.submit(TANDEM_OP_NOP, 3);
  ASSERT_EQ(::poll(&wait, 1, 20000), 1);
  EXPECT_EQ(queue.poll()->tag, 3u);
  // A client that neither reads nor keeps its end stops nobody.
  for (std::uint64_t tag = 0; tag < 5000; ++tag) {
    queue.submit(TANDEM_OP_NOP, tag);
    ASSERT_TRUE(queue.wait());
    if (tag == 3000) event->reset();
  }
}

// What runs is what was submitted, not what the slot says later.
TEST_P(QueueTest, ADescriptorRewrittenAfterSubmissionRunsAsOneOfItsVersions) {
  if (GetParam() == 0) GTEST_SKIP() << "needs an engine that runs meanwhile";
  RawQueue queue(*client, "test", 2);
  for (std::uint64_t round = 0; round < 20000; ++round) {
    tandem_descriptor& slot = queue.slot(queue.sent());
    queue.submit(TestEngine::kOperate, round, 1, round);
    // The opcode turns to garbage while the engine copies: either version, never a crash.
    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(&slot))
        .store(0x0fff, std::memory_order_relaxed);
    const auto completion = queue.wait();
    ASSERT_TRUE(completion);
    ASSERT_EQ(completion->tag, round);
    if (completion->status == TANDEM_STATUS_OK) {
      ASSERT_EQ(completion->result, round);
    } else {
      ASSERT_EQ(completion->status, TANDEM_STATUS_UNKNOWN_OPCODE);
    }
  }
}

// Planted: uacce-lost-completion, uacce-double-completion.
TEST_P(QueueTest, EveryTagCompletesExactlyOnceUnderStress) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  RawQueue queue(*client, "test", 128);
  std::uint64_t next_tag = 0;
  std::uint64_t expected = 0;
  constexpr std::uint64_t kTags = 200000;
  while (expected < kTags) {
    const std::uint32_t burst =
        std::min<std::uint32_t>(queue.room(), static_cast<std::uint32_t>(random() % 40));
    for (std::uint32_t i = 0; i < burst && next_tag < kTags; ++i) {
      tandem_descriptor descriptor{};
      descriptor.opcode = random() % 4 == 0 ? TestEngine::kOperate : std::uint16_t{TANDEM_OP_NOP};
      descriptor.operand = next_tag;
      descriptor.tag = next_tag++;
      queue.write(descriptor);
    }
    queue.publish();
    if (queue.sent() == queue.received()) continue;
    auto completion = next(queue);
    ASSERT_TRUE(completion) << "lost after tag " << expected;
    for (; completion; completion = queue.poll()) {
      ASSERT_EQ(completion->tag, expected);
      ++expected;
    }
  }
  EXPECT_FALSE(queue.poll());
}

}  // namespace
}  // namespace tandem::uacce
