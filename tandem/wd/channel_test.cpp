// SPDX-License-Identifier: Apache-2.0
/// A Queue of wd.hpp: waiting when no descriptor can be had, and what its errors say.
#include "tandem/wd/detail/channel.hpp"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <limits>
#include <vector>

#include "tandem/wd/coroutine.hpp"
#include "tandem/wd/detail/fixture.hpp"

namespace tandem::wd::detail {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// In the calling thread, so that ThreadSanitizer has nothing to say.
class ChannelTest : public WdTest {
 protected:
  static Queue open_queue() {
    return Queue::open("fake", {.path = Path::kInline, .depth = 8}).value();
  }
  static std::chrono::steady_clock::time_point soon() {
    return std::chrono::steady_clock::now() + kSoon;
  }
  static constexpr std::chrono::milliseconds kSoon{50};
  // One look each millisecond, the first at once.
  static constexpr int kMostLooks = 51;
};

TEST_F(ChannelTest, ArmTellsAnErrorFromSomethingToDo) {
  Queue queue = open_queue();
  behaviour.event_error = EMFILE;
  EXPECT_EQ(queue.arm(), -EMFILE);
  EXPECT_EQ(queue.fd(), -EMFILE);
  behaviour.event_error = 0;
  EXPECT_EQ(queue.arm(), 0);
  EXPECT_GE(queue.fd(), 0);
  Op done = queue.submit(Nop{});
  EXPECT_EQ(queue.arm(), 1);
  EXPECT_TRUE(done.get());
}

TEST_F(ChannelTest, ArmWorksAgainOnceThereAreDescriptors) {
  Queue queue = open_queue();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = ::dup(STDERR_FILENO);
  ASSERT_EQ(::close(next), 0);
  rlimit one_left = before;  // the event's, which is given once
  one_left.rlim_cur = static_cast<rlim_t>(next) + 1;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &one_left), 0);
  EXPECT_EQ(queue.arm(), -EMFILE);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(queue.arm(), 0);
}

TEST_F(ChannelTest, WaitingWithoutADescriptorNaps) {
  Queue queue = open_queue();
  behaviour.event_error = EMFILE;
  behaviour.paused = true;
  Op op = queue.submit(Nop{});
  const auto late = op.get_until(soon());
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kDeadline);
  EXPECT_LE(behaviour.events, kMostLooks);
  behaviour.paused = false;
  EXPECT_TRUE(op.get_until(std::chrono::steady_clock::now() + std::chrono::minutes(1)));
}

#if defined(__cpp_impl_coroutine)
Task<int> await_one(Queue& queue) {
  const auto done = co_await queue.submit(Nop{});
  if (!done) co_return Unexpected{done.error()};
  co_return 1;
}

TEST_F(ChannelTest, DrivingWithoutADescriptorNaps) {
  Queue queue = open_queue();
  behaviour.event_error = EMFILE;
  behaviour.paused = true;
  const auto task = await_one(queue);
  const auto late = drive(queue, task, soon());
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kDeadline);
  EXPECT_LE(behaviour.events, kMostLooks);
  behaviour.paused = false;
  EXPECT_TRUE(drive(queue, task));
}
#endif

TEST_F(ChannelTest, AnErrorOfALengthSpeaksOfTheLength) {
  Queue queue = open_queue();
  for (const std::size_t size : {std::size_t{0}, std::numeric_limits<std::size_t>::max()}) {
    const auto memory = queue.reserve(size);
    ASSERT_FALSE(memory);
    EXPECT_EQ(memory.error().code, Code::kInvalid);
    EXPECT_THAT(memory.error().hint, HasSubstr("at least 1 byte"));
    EXPECT_THAT(memory.error().hint, Not(HasSubstr("open")));
  }
  const Crc32c huge{.src = In(this, std::size_t{1} << 32)};
  Batch batch = queue.make_batch();
  batch.add(huge);
  std::vector<Op> ops = batch.submit();
  ops.push_back(queue.submit(huge));
  for (Op& op : ops) {
    const auto done = op.get();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Code::kInvalid);
    EXPECT_THAT(done.error().hint, HasSubstr("4 GiB"));
  }
}

TEST_F(ChannelTest, TheErrorOfABadDescriptorNamesTheCodecsLimits) {
  wd_request refused{};
  refused.status = TANDEM_STATUS_BAD_DESCRIPTOR;
  const Error error = Error::from_request(refused);
  EXPECT_EQ(error.code, Code::kInvalid);
  static_assert(TANDEM_MAX_CODEC_BYTES == 64u << 20 && TANDEM_LEVEL_BEST == 12);
  EXPECT_THAT(error.hint, HasSubstr("64 MiB"));
  EXPECT_THAT(error.hint, HasSubstr("level 0 to 12"));
}

}  // namespace
}  // namespace tandem::wd::detail
