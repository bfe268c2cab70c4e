// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/coroutine.hpp"

#include <stdexcept>
#include <vector>

#include "tandem/wd/detail/fixture.hpp"

namespace tandem::wd::detail {
namespace {

class CoroutineTest : public WdTest {
 protected:
  void SetUp() override {
    WdTest::SetUp();
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP()
        << "ThreadSanitizer does not see that rings order accesses: each side maps them at "
           "an address of its own";
#endif
  }
  static Queue open_queue(Path path, std::size_t inline_below = 0) {
    return Queue::open("fake", {.path = path, .depth = 8, .inline_below = inline_below}).value();
  }
};

#if defined(__cpp_impl_coroutine)

/// Copies `rounds` times, one after the other. Returns the bytes copied.
Task<std::size_t> copy_again(Queue& queue, Out dst, In src, int rounds) {
  std::size_t total = 0;
  for (int i = 0; i < rounds; ++i) {
    const auto done = co_await queue.submit(Copy{dst, src});
    if (!done) co_return Unexpected{done.error()};
    total += done->value;
  }
  co_return total;
}

TEST_F(CoroutineTest, ManyGoOnTogetherUntilAllAreDone) {
  for (const Path path : {Path::kEmbedded, Path::kInline}) {
    Queue queue = open_queue(path);
    const std::vector<char> src(100, 's');
    std::vector<std::vector<char>> dst(6, std::vector<char>(100));
    std::vector<Task<std::size_t>> tasks;
    for (auto& out : dst) tasks.push_back(copy_again(queue, out, src, 50));
    for (auto& task : tasks) {
      const auto total = drive(queue, task);
      ASSERT_TRUE(total) << total.error().hint;
      EXPECT_EQ(*total, 5000u);
    }
    for (const auto& out : dst) EXPECT_EQ(out, src);
    EXPECT_EQ(queue.in_flight(), 0u);
  }
}

TEST_F(CoroutineTest, PollAloneResumesThem) {
  Queue queue = open_queue(Path::kEmbedded);
  behaviour.paused = true;
  const std::vector<char> src(10, 's');
  std::vector<char> dst(10);
  auto task = copy_again(queue, dst, src, 1);
  EXPECT_FALSE(task.done());
  EXPECT_EQ(task.result().error().code, Code::kBusy);
  behaviour.paused = false;
  fake->wake();
  auto other = queue.submit(Nop{});
  EXPECT_TRUE(other.get()) << "which receives the copy too";
  EXPECT_FALSE(task.done()) << "nobody has polled";
  EXPECT_TRUE(queue.arm()) << "something is to be done";
  (void)queue.poll(8);
  EXPECT_EQ(task.result().value(), 10u);
}

TEST_F(CoroutineTest, SmallOperationsThatRunInTheCallerAreDrivenToo) {
  Queue queue = open_queue(Path::kEmbedded, 1000);
  const std::vector<char> src(10, 's');
  std::vector<char> dst(10);
  auto task = copy_again(queue, dst, src, 20);
  EXPECT_EQ(drive(queue, task).value(), 200u);
}

TEST_F(CoroutineTest, DeadlineLeavesItGoingOn) {
  Queue queue = open_queue(Path::kEmbedded);
  behaviour.paused = true;
  const std::vector<char> src(10, 's');
  std::vector<char> dst(10);
  auto task = copy_again(queue, dst, src, 1);
  const auto late =
      drive(queue, task, std::chrono::steady_clock::now() + std::chrono::milliseconds(20));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kDeadline);
  behaviour.paused = false;
  fake->wake();
  EXPECT_EQ(drive(queue, task).value(), 10u);
}

TEST_F(CoroutineTest, DeathOfTheQueueIsTheResult) {
  Queue queue = open_queue(Path::kEmbedded);
  behaviour.paused = true;
  const std::vector<char> src(10, 's');
  std::vector<char> dst(10);
  auto task = copy_again(queue, dst, src, 5);
  fake->set_state(engine_side(), TANDEM_QUEUE_STUCK);
  const auto lost = drive(queue, task);
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, Code::kDeviceLost);
}

TEST_F(CoroutineTest, ReadyErrorsDoNotSuspend) {
  Queue queue = open_queue(Path::kInline);
  std::vector<char> dst(10);
  auto fill_the_queue = [](Queue& q, Out out) -> Task<int> {
    std::vector<Op> ops;
    for (int i = 0; i < 8; ++i) ops.push_back(q.submit(Fill{out, 0}));
    const auto refused = co_await q.submit(Fill{out, 0});
    co_return refused ? 0 : refused.error().code == Code::kBusy ? 1 : 2;
  };
  EXPECT_EQ(fill_the_queue(queue, dst).result().value(), 1);
}

TEST_F(CoroutineTest, ExceptionIsAnError) {
  Queue queue = open_queue(Path::kInline);
  auto thrower = [](Queue& q, bool memory) -> Task<int> {
    (void)co_await q.submit(Nop{});
    if (memory) throw std::bad_alloc();
    throw std::runtime_error("x");
    co_return 0;
  };
  auto first = thrower(queue, true), second = thrower(queue, false);
  EXPECT_EQ(drive(queue, first).error().code, Code::kNoMemory);
  EXPECT_EQ(drive(queue, second).error().code, Code::kSystem);
}

TEST_F(CoroutineTest, DestroyedWhileItAwaitsIsNeverResumed) {
  Queue queue = open_queue(Path::kEmbedded);
  const std::vector<char> src(10, 's');
  std::vector<char> dst(10);
  bool resumed = false;
  auto body = [&](Queue& q) -> Task<int> {
    (void)co_await q.submit(Copy{dst, src});
    resumed = true;
    co_return 0;
  };
  behaviour.paused = true;
  {
    const auto task = body(queue);
    behaviour.paused = false;
    fake->wake();
  }
  EXPECT_EQ(dst, src) << "its operation was waited for";
  EXPECT_EQ(queue.poll(8), 0);
  EXPECT_FALSE(resumed);
}

TEST_F(CoroutineTest, OneThatAwaitsNothingHereIsToldApart) {
  Queue queue = open_queue(Path::kEmbedded);
  Queue other = open_queue(Path::kEmbedded);
  behaviour.paused = true;
  std::vector<char> dst(10);
  auto task = copy_again(other, dst, dst, 1);
  EXPECT_EQ(drive(queue, task).error().code, Code::kInvalid);
  behaviour.paused = false;
  fake->wake();
  EXPECT_EQ(drive(other, task).value(), 10u);
}

#else
TEST_F(CoroutineTest, CompilerHasNone) { GTEST_SKIP() << "no coroutines in this compiler's C++20"; }
#endif

}  // namespace
}  // namespace tandem::wd::detail
