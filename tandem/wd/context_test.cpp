// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <thread>
#include <vector>

#include "tandem/base/test_sandbox.hpp"
#include "tandem/wd/detail/fixture.hpp"

namespace tandem::wd::detail {
namespace {

using ContextTest = WdTest;

TEST_F(ContextTest, SentRequestComesBackWithItsResult) {
  for (const wd_path path : {WD_PATH_EMBEDDED, WD_PATH_INLINE}) {
    wd_queue q = open(path);
    EXPECT_EQ(q.path, static_cast<std::uint32_t>(path));
    EXPECT_STREQ(q.device, "fake-0");
    wd_request request = nop(42);
    run(q, request);
    EXPECT_EQ(request.status, TANDEM_STATUS_OK);
    EXPECT_EQ(request.result, 42u);
    EXPECT_EQ(wd_in_flight(&q), 0u);
    wd_release_queue(&q);
  }
}

TEST_F(ContextTest, RingsWrapManyTimesInOrder) {
  wd_queue q = open(WD_PATH_EMBEDDED, 4);
  std::array<wd_request, 4> requests{};
  std::uint64_t sent = 0, received = 0;
  while (received < 10'000) {
    while (sent - received < requests.size()) {
      requests[sent % 4] = nop(sent);
      ASSERT_EQ(wd_send(&q, &requests[sent % 4]), 0);
      ++sent;
    }
    wd_request* got = nullptr;
    ASSERT_EQ(wd_recv_sync(&q, &got), 1);
    ASSERT_EQ(got->result, received);
    ++received;
  }
  wd_release_queue(&q);
}

TEST_F(ContextTest, FullRingIsBusyUntilSomethingIsReceived) {
  wd_queue q = open(WD_PATH_EMBEDDED, 4);
  std::array<wd_request, 5> requests{nop(), nop(), nop(), nop(), nop()};
  for (int i = 0; i < 4; ++i) ASSERT_EQ(wd_send(&q, &requests[static_cast<std::size_t>(i)]), 0);
  EXPECT_EQ(wd_send(&q, &requests[4]), -EBUSY);
  EXPECT_EQ(wd_in_flight(&q), 4u);
  wd_flush(&q);
  EXPECT_EQ(wd_send(&q, &requests[4]), -EBUSY) << "completed but not received";
  wd_request* got = nullptr;
  ASSERT_EQ(wd_recv(&q, &got), 1);
  EXPECT_EQ(wd_send(&q, &requests[4]), 0);
  wd_release_queue(&q);
}

TEST_F(ContextTest, BatchIsTakenAsFarAsThereIsRoom) {
  wd_queue q = open(WD_PATH_EMBEDDED, 4);
  std::vector<wd_request> requests(6, nop());
  std::vector<wd_request*> pointers;
  for (auto& request : requests) pointers.push_back(&request);
  EXPECT_EQ(wd_send_batch(&q, pointers.data(), 6), 4);
  wd_request* got = nullptr;
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(wd_recv_sync(&q, &got), 1);
    EXPECT_EQ(got, pointers[static_cast<std::size_t>(i)]);
  }
  EXPECT_EQ(wd_recv_sync(&q, &got), -ENOMSG);
  wd_release_queue(&q);
}

TEST_F(ContextTest, NothingInFlightIsToldApartFromNothingReady) {
  wd_queue q = open();
  wd_request* got = nullptr;
  EXPECT_EQ(wd_recv(&q, &got), -EAGAIN);
  EXPECT_EQ(wd_recv_sync(&q, &got), -ENOMSG);
  behaviour.paused = true;
  wd_request request = nop();
  ASSERT_EQ(wd_send(&q, &request), 0);
  EXPECT_EQ(wd_recv(&q, &got), -EAGAIN);
  behaviour.paused = false;
  EXPECT_EQ(wd_recv_sync(&q, &got), 1);
  wd_release_queue(&q);
}

TEST_F(ContextTest, RequestInFlightIsNotTakenTwice) {
  wd_queue q = open();
  wd_queue other = open();
  wd_request request = nop();
  ASSERT_EQ(wd_send(&q, &request), 0);
  EXPECT_EQ(wd_send(&q, &request), -EINVAL);
  EXPECT_EQ(wd_send(&other, &request), -EINVAL);
  wd_request* got = nullptr;
  ASSERT_EQ(wd_recv_sync(&q, &got), 1);
  EXPECT_EQ(wd_send(&other, &request), 0);
  wd_release_queue(&other);  // with the request in flight, which is lost and free again
  EXPECT_EQ(wd_send(&q, &request), 0);
  EXPECT_EQ(wd_recv_sync(&q, &got), 1);
  wd_release_queue(&q);
}

TEST_F(ContextTest, UnclearedRequestIsTakenWhenNoQueueHasIt) {
  wd_queue q = open();
  wd_request request = nop();
  request.opaque[0] = 0xdeadbeef;
  EXPECT_EQ(wd_send(&q, &request), 0);
  wd_release_queue(&q);
}

/// Receives everything and counts: how many, how many of them lost.
std::pair<int, int> drain(wd_queue& q) {
  int received = 0, lost = 0;
  wd_request* got = nullptr;
  while (wd_recv_sync(&q, &got) == 1) {
    ++received;
    if (got->status == TANDEM_STATUS_DEVICE_LOST) ++lost;
  }
  EXPECT_EQ(wd_recv(&q, &got), -ESHUTDOWN);
  EXPECT_EQ(wd_recv_sync(&q, &got), -ESHUTDOWN);
  wd_request another{};
  another.opcode = WD_OP_NOP;
  EXPECT_EQ(wd_send(&q, &another), -ESHUTDOWN);
  return {received, lost};
}

TEST_F(ContextTest, CorruptTailKillsTheQueueAndLosesEachRequestOnce) {
  wd_queue q = open();
  behaviour.paused = true;
  std::array<wd_request, 3> requests{nop(), nop(), nop()};
  for (auto& request : requests) ASSERT_EQ(wd_send(&q, &request), 0);
  std::atomic_ref(engine_side().doorbell().tail).store(1'000'000);
  behaviour.paused = false;
  EXPECT_EQ(drain(q), std::pair(3, 3));
  wd_release_queue(&q);
}

TEST_F(ContextTest, WhatCompletedBeforeTheEndStillCounts) {
  wd_queue q = open();
  std::array<wd_request, 3> requests{nop(), nop(), nop()};
  ASSERT_EQ(wd_send(&q, &requests[0]), 0);
  while (engine_side().completed == 0) std::this_thread::yield();
  behaviour.paused = true;
  ASSERT_EQ(wd_send(&q, &requests[1]), 0);
  ASSERT_EQ(wd_send(&q, &requests[2]), 0);
  fake->set_state(engine_side(), TANDEM_QUEUE_DEVICE_REMOVED);
  EXPECT_EQ(drain(q), std::pair(3, 2));
  EXPECT_EQ(requests[0].status, TANDEM_STATUS_OK);
  wd_release_queue(&q);
}

TEST_F(ContextTest, WrongTagKillsTheQueue) {
  for (const std::uint64_t tag : {std::uint64_t{1}, ~std::uint64_t{0}}) {
    behaviour.execute = [tag](const tandem_descriptor&) {
      tandem_completion answer{};
      answer.tag = tag;
      return answer;
    };
    wd_queue q = open(WD_PATH_INLINE);
    std::array<wd_request, 3> requests{nop(), nop(), nop()};
    for (auto& request : requests) ASSERT_EQ(wd_send(&q, &request), 0);
    EXPECT_EQ(drain(q), std::pair(3, 3));
    wd_release_queue(&q);
  }
}

TEST_F(ContextTest, DeathOfTheOtherSideWakesASleeper) {
  wd_queue q = open();
  behaviour.paused = true;
  wd_request request = nop();
  ASSERT_EQ(wd_send(&q, &request), 0);
  std::thread killer([&q] {
    while (std::atomic_ref(engine_side().doorbell().waiting).load() != TANDEM_WAIT_FUTEX) {
      std::this_thread::yield();
    }
    (void)q;
    fake->kill();
  });
  wd_request* got = nullptr;
  ASSERT_EQ(wd_recv_sync(&q, &got), 1);
  EXPECT_EQ(got->status, TANDEM_STATUS_DEVICE_LOST);
  EXPECT_EQ(wd_recv_sync(&q, &got), -ESHUTDOWN);
  killer.join();
  // A new queue finds a new device.
  behaviour.paused = false;
  EXPECT_EQ(wd_reinit(&q), 0);
  run(q, request);
  EXPECT_EQ(request.status, TANDEM_STATUS_OK);
  wd_release_queue(&q);
}

TEST_F(ContextTest, ReleaseWithRequestsInFlightReturnsTheQueue) {
  wd_queue q = open();
  behaviour.paused = true;
  wd_request request = nop();
  ASSERT_EQ(wd_send(&q, &request), 0);
  EXPECT_EQ(fake->queue_count(), 1u);
  wd_release_queue(&q);
  EXPECT_EQ(fake->queue_count(), 0u);
  wd_release_queue(&q);
  wd_release_queue(nullptr);
  EXPECT_EQ(wd_send(&q, &request), -EINVAL);
}

TEST_F(ContextTest, ParkedEngineIsWokenAndSleeperToo) {
  wd_queue q = open();
  for (int round = 0; round < 20; ++round) {
    while (std::atomic_ref(engine_side().doorbell().parked).load() == 0) {
      std::this_thread::yield();
    }
    wd_request request = nop();
    run(q, request);
    ASSERT_EQ(request.status, TANDEM_STATUS_OK);
  }
  EXPECT_GT(fake->wakes(), 0u);
  wd_release_queue(&q);
}

TEST_F(ContextTest, SleeperIsWokenByACompletion) {
  wd_queue q = open();
  behaviour.paused = true;
  wd_request request = nop();
  ASSERT_EQ(wd_send(&q, &request), 0);
  std::thread engine(go_on_once_somebody_sleeps);
  wd_request* got = nullptr;
  EXPECT_EQ(wd_recv_sync(&q, &got), 1);
  engine.join();
  wd_release_queue(&q);
}

bool readable(int fd, int timeout_ms) {
  pollfd waiting{fd, POLLIN, 0};
  return ::poll(&waiting, 1, timeout_ms) == 1;
}

TEST_F(ContextTest, DescriptorIsReadableOnlyAfterArmAndACompletion) {
  wd_queue q = open();
  const int fd = wd_fd(&q);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(wd_fd(&q), fd);
  wd_request request = nop();
  wd_request* got = nullptr;
  run(q, request);
  EXPECT_FALSE(readable(fd, 0)) << "nobody asked";
  for (int round = 0; round < 100; ++round) {
    EXPECT_EQ(wd_arm(&q), 0);
    ASSERT_EQ(wd_send(&q, &request), 0);
    ASSERT_TRUE(readable(fd, 10'000));
    ASSERT_EQ(wd_recv(&q, &got), 1);
  }
  ASSERT_EQ(wd_send(&q, &request), 0);
  while (engine_side().completed < 102) std::this_thread::yield();
  EXPECT_EQ(wd_arm(&q), 1) << "completed before the call: no signal would come";
  ASSERT_EQ(wd_recv(&q, &got), 1);
  wd_release_queue(&q);
}

TEST_F(ContextTest, DescriptorIsReadableWhenTheQueueDies) {
  wd_queue q = open();
  behaviour.paused = true;
  wd_request request = nop();
  ASSERT_EQ(wd_send(&q, &request), 0);
  ASSERT_EQ(wd_arm(&q), 0);
  fake->set_state(engine_side(), TANDEM_QUEUE_STUCK);
  EXPECT_TRUE(readable(wd_fd(&q), 10'000));
  wd_request* got = nullptr;
  EXPECT_EQ(wd_recv(&q, &got), 1);
  EXPECT_EQ(got->status, TANDEM_STATUS_DEVICE_LOST);
  wd_release_queue(&q);
}

TEST_F(ContextTest, RequestThatWaitsCanBeCancelled) {
  wd_queue q = open();
  behaviour.paused = true;
  char byte = 0;
  wd_request first = nop(), second = nop();
  second.opcode = WD_OP_FILL;
  second.dst = &byte;
  second.dst_len = 1;
  second.operand = 7;
  ASSERT_EQ(wd_send(&q, &first), 0);
  ASSERT_EQ(wd_send(&q, &second), 0);
  EXPECT_EQ(wd_cancel(&q, &second), 0);
  behaviour.paused = false;
  wd_request* got = nullptr;
  ASSERT_EQ(wd_recv_sync(&q, &got), 1);
  EXPECT_EQ(got->status, TANDEM_STATUS_OK);
  ASSERT_EQ(wd_recv_sync(&q, &got), 1);
  EXPECT_EQ(got, &second);
  EXPECT_EQ(got->status, TANDEM_STATUS_CANCELLED);
  EXPECT_EQ(byte, 0);
  EXPECT_EQ(wd_cancel(&q, &second), -ENOENT);
  wd_release_queue(&q);
}

TEST_F(ContextTest, StreamHasOneRequestInFlight) {
  behaviour.execute = nullptr;
  wd_queue q = open();
  wd_request first = nop(), second = nop();
  first.opcode = second.opcode = WD_OP_INFLATE_STREAM;
  ASSERT_EQ(wd_send(&q, &first), 0);
  EXPECT_EQ(wd_send(&q, &second), -EBUSY);
  wd_request* got = nullptr;
  ASSERT_EQ(wd_recv_sync(&q, &got), 1);
  EXPECT_EQ(wd_send(&q, &second), 0);
  wd_release_queue(&q);
}

TEST_F(ContextTest, QueueOfOtherSizesIsTakenOrRefused) {
  struct Longer {
    wd_queue queue;
    char more[64];
  } longer{};
  std::memset(longer.more, 0x5a, sizeof longer.more);
  longer.queue.size = sizeof longer;
  longer.queue.algorithm = "fake";
  longer.queue.path = WD_PATH_EMBEDDED;
  EXPECT_EQ(wd_request_queue(&longer.queue), 0);
  for (const char byte : longer.more) EXPECT_EQ(byte, 0x5a);
  EXPECT_EQ(longer.queue.depth, TANDEM_DEFAULT_DEPTH);
  EXPECT_EQ(wd_request_queue(&longer.queue), -EINVAL) << "open already";
  wd_release_queue(&longer.queue);

  wd_queue shorter = WD_QUEUE_INIT;
  shorter.size = sizeof shorter - 8;
  shorter.algorithm = "fake";
  EXPECT_EQ(wd_request_queue(&shorter), -EINVAL);
}

TEST_F(ContextTest, NonsenseIsRefused) {
  const auto result = [](const char* algorithm, std::uint32_t depth, std::uint32_t path) {
    wd_queue q = WD_QUEUE_INIT;
    q.algorithm = algorithm;
    q.depth = depth;
    q.path = path;
    return wd_request_queue(&q);
  };
  EXPECT_EQ(result(nullptr, 0, WD_PATH_EMBEDDED), -EINVAL);
  EXPECT_EQ(result("", 0, WD_PATH_EMBEDDED), -EINVAL);
  EXPECT_EQ(result("a-name-of-thirty-two-characters!", 0, WD_PATH_EMBEDDED), -EINVAL);
  EXPECT_EQ(result("fake", 3, WD_PATH_EMBEDDED), -EINVAL);
  EXPECT_EQ(result("fake", 1, WD_PATH_EMBEDDED), -EINVAL);
  EXPECT_EQ(result("fake", 131072, WD_PATH_EMBEDDED), -EINVAL);
  EXPECT_EQ(result("fake", 0, 77), -EINVAL);
  EXPECT_EQ(result("no such thing", 0, WD_PATH_EMBEDDED), -ENODEV);
  EXPECT_EQ(wd_request_queue(nullptr), -EINVAL);
  wd_queue closed = WD_QUEUE_INIT;
  wd_request* got = nullptr;
  EXPECT_EQ(wd_recv(&closed, &got), -EINVAL);
  EXPECT_EQ(wd_in_flight(nullptr), 0u);
}

TEST_F(ContextTest, ReservedMemoryLivesUntilReleasedOrTheLastQueueGoes) {
  wd_queue q = open();
  wd_queue second = open();
  void* const small = wd_reserve_memory(&q, 100);
  ASSERT_NE(small, nullptr);
  auto* const large = static_cast<char*>(wd_reserve_memory(&q, 4u << 20));
  ASSERT_NE(large, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(large) % (2u << 20), 0u);
  large[(4u << 20) - 1] = 1;
  EXPECT_EQ(fake->reserved_count(), 2u);
  EXPECT_EQ(wd_share_reserved_memory(&q, &second), 0);
  EXPECT_EQ(wd_release_memory(&second, small), 0);
  EXPECT_EQ(wd_release_memory(&q, small), -EINVAL);
  EXPECT_EQ(wd_release_memory(&q, large + 4096), -EINVAL);
  EXPECT_EQ(fake->reserved_count(), 1u);
  wd_release_queue(&q);
  EXPECT_EQ(fake->reserved_count(), 1u);
  wd_release_queue(&second);
  EXPECT_EQ(fake->reserved_count(), 0u);
  wd_queue third = open();
  errno = 0;
  EXPECT_EQ(wd_reserve_memory(&third, 0), nullptr);
  EXPECT_EQ(errno, EINVAL);
  wd_release_queue(&third);
}

TEST_F(ContextTest, ReservedMemoryOutlivesTheOtherSideAndReinit) {
  wd_queue q = open(WD_PATH_INLINE);
  auto* const memory = static_cast<char*>(wd_reserve_memory(&q, 8192));
  ASSERT_NE(memory, nullptr);
  const std::uint64_t id = wd_memory_id(memory);
  EXPECT_NE(id, 0u);
  std::strcpy(memory, "what the user wrote");
  fake->kill();
  ASSERT_EQ(wd_reinit(&q), 0);
  ASSERT_TRUE(is_mapped(memory));
  EXPECT_STREQ(memory, "what the user wrote");
  EXPECT_EQ(wd_memory_id(memory), id);
  wd_request request = copy(memory + 4096, memory, 100);
  run(q, request);
  EXPECT_EQ(request.status, TANDEM_STATUS_OK);
  EXPECT_STREQ(memory + 4096, "what the user wrote");
  EXPECT_EQ(wd_release_memory(&q, memory), 0);
  EXPECT_FALSE(is_mapped(memory));
  EXPECT_EQ(wd_release_memory(&q, memory), -EINVAL);
  EXPECT_EQ(wd_memory_id(memory), 0u);
  wd_release_queue(&q);
}

TEST_F(ContextTest, ReservedMemoryOfADeadSideGoesWithTheLastQueueOfItsPath) {
  wd_queue first = open(WD_PATH_INLINE);
  wd_queue second = open(WD_PATH_INLINE);
  void* const memory = wd_reserve_memory(&first, 4096);
  ASSERT_NE(memory, nullptr);
  fake->kill();
  ASSERT_EQ(wd_reinit(&first), 0);
  wd_release_queue(&second);  // the last on the old connection
  EXPECT_TRUE(is_mapped(memory));
  wd_release_queue(&first);
  EXPECT_FALSE(is_mapped(memory));

  wd_queue third = open(WD_PATH_INLINE);
  void* const more = wd_reserve_memory(&third, 4096);
  ASSERT_NE(more, nullptr);
  fake->kill();
  wd_release_queue(&third);
  EXPECT_FALSE(is_mapped(more));
}

TEST_F(ContextTest, DevicesAndStatisticsAreTold) {
  wd_queue q = open();
  wd_request request = nop();
  run(q, request);
  std::array<wd_device, 2> devices{};
  EXPECT_EQ(wd_list_devices(WD_PATH_EMBEDDED, devices.data(), 2), 1);
  EXPECT_STREQ(devices[0].name, "fake-0");
  EXPECT_EQ(devices[0].queues_used, 1u);
  EXPECT_EQ(wd_list_devices(WD_PATH_EMBEDDED, nullptr, 0), 1);
  wd_stats stats{};
  EXPECT_EQ(wd_get_stats(&q, &stats), 0);
  EXPECT_EQ(stats.operations, 1u);
  wd_release_queue(&q);
}

TEST_F(ContextTest, StructuresOfOtherVersionsAreFilledAsFarAsTheyGo) {
  wd_queue q = open();
  struct LongerDevice {
    wd_device device;
    std::array<char, 40> more;
  };
  std::array<LongerDevice, 2> devices{};
  for (auto& device : devices) device.more.fill(0x5a);
  EXPECT_EQ(wd_list_devices_sized(WD_PATH_EMBEDDED, &devices[0].device, sizeof devices[0], 2), 1);
  EXPECT_STREQ(devices[0].device.name, "fake-0");
  EXPECT_EQ(devices[0].more[0], 0) << "unknown here: zero";
  EXPECT_EQ(devices[1].more[0], 0x5a) << "not filled";
  EXPECT_EQ(wd_list_devices_sized(WD_PATH_EMBEDDED, &devices[0].device, 100, 1), -EINVAL);

  struct {
    wd_stats stats;
    std::uint64_t behind;
  } longer{{}, 0x5a};
  EXPECT_EQ(wd_get_stats_sized(&q, &longer.stats, sizeof longer.stats), 0);
  EXPECT_EQ(longer.behind, 0x5au);
  EXPECT_EQ(wd_get_stats_sized(&q, &longer.stats, sizeof longer), 0);
  EXPECT_EQ(longer.behind, 0u);
  EXPECT_EQ(wd_get_stats_sized(&q, &longer.stats, 8), -EINVAL);
  wd_release_queue(&q);
}

TEST_F(ContextTest, OpenSetsTheCallersSizeWhateverStoodThere) {
  wd_queue q;
  std::memset(&q, 0xff, sizeof q);
  EXPECT_EQ(wd_open(&q, "no such thing"), -ENODEV);
  EXPECT_EQ(q.size, sizeof q);
  EXPECT_EQ(wd_open(nullptr, "fake"), -EINVAL);
}

TEST_F(ContextTest, EveryErrorAndStatusHasWords) {
  for (const int error : {0, EINVAL, ENODEV, EACCES, EBUSY, EAGAIN, ENOMSG, ESHUTDOWN, 9999}) {
    EXPECT_GT(std::strlen(wd_strerror(-error)), 3u);
    EXPECT_STREQ(wd_strerror(-error), wd_strerror(error));
  }
  EXPECT_THAT(wd_strerror(-ESHUTDOWN), ::testing::HasSubstr("wd_reinit"));
  EXPECT_THAT(wd_strstatus(TANDEM_STATUS_FAULT), ::testing::HasSubstr("fault_address"));
  for (int status = 0; status < 20; ++status) EXPECT_GT(std::strlen(wd_strstatus(status)), 1u);
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
TEST_F(ContextTest, AMillionOperationsMakeNoSystemCall) {
  if (usable_cpus() == 1) GTEST_SKIP() << "one CPU: the engine needs the scheduler";
  EXPECT_EQ(in_child([] {
              wd_queue q = open(WD_PATH_EMBEDDED, 4096);
              if (wd_keep_awake(&q, 1) != 0) return 2;
              std::vector<wd_request> requests(4096, nop());
              forbid_system_calls();
              std::uint64_t sent = 0;
              for (std::uint64_t received = 0; received < 1'000'000;) {
                while (sent < 1'000'000 && wd_send(&q, &requests[sent % 4096]) == 0) ++sent;
                wd_request* got = nullptr;
                while (wd_recv(&q, &got) == 1) ++received;
              }
              ::_exit(0);  // destructors would return memory
            }),
            0);
}
#endif

TEST_F(ContextTest, SandboxWithoutMembarrierStillSleepsAndWakes) {
  wd_queue q = open();
  const int fd = wd_fd(&q);
  std::thread sandboxed([&] {
    if (!refuse_system_call(SYS_membarrier, EPERM)) GTEST_SKIP() << "no seccomp here";
    behaviour.paused = true;
    wd_request request = nop(5);
    EXPECT_EQ(wd_send(&q, &request), 0);
    std::thread engine(go_on_once_somebody_sleeps);
    wd_request* got = nullptr;
    EXPECT_EQ(wd_recv_sync(&q, &got), 1);
    EXPECT_EQ(request.result, 5u);
    engine.join();
    EXPECT_EQ(wd_arm(&q), 0);
    EXPECT_EQ(wd_send(&q, &request), 0);
    EXPECT_TRUE(readable(fd, 10'000));
    EXPECT_EQ(wd_recv(&q, &got), 1);
  });
  sandboxed.join();
  wd_release_queue(&q);
}

TEST_F(ContextTest, HoldsAreCounted) {
  wd_queue q = open();
  EXPECT_EQ(wd_keep_awake(&q, 0), -EINVAL);
  EXPECT_EQ(wd_keep_awake(&q, 1), 0);
  EXPECT_EQ(wd_keep_awake(&q, 1), 0);
  EXPECT_EQ(engine_side().holds, 1);
  EXPECT_EQ(wd_keep_awake(&q, 0), 0);
  EXPECT_EQ(engine_side().holds, 1);
  EXPECT_EQ(wd_keep_awake(&q, 0), 0);
  EXPECT_EQ(engine_side().holds, 0);
  wd_release_queue(&q);
}

TEST_F(ContextTest, HoldThatCannotBeKeptIsNoHold) {
  behaviour.overslept = true;
  wd_queue q = open();
  while (std::atomic_ref(engine_side().doorbell().parked).load() == 0) std::this_thread::yield();
  EXPECT_EQ(wd_keep_awake(&q, 1), -ETIMEDOUT);
  EXPECT_EQ(engine_side().holds, 0);
  EXPECT_EQ(wd_keep_awake(&q, 0), -EINVAL);
  behaviour.overslept = false;
  EXPECT_EQ(wd_keep_awake(&q, 1), 0);
  EXPECT_EQ(engine_side().holds, 1);
  wd_release_queue(&q);
}

}  // namespace
}  // namespace tandem::wd::detail
