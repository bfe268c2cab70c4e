// SPDX-License-Identifier: Apache-2.0
/// What a thread holds up that is stopped in the midst of something, after each of its
/// instructions: docs/spec/kxo-device.md, "Progress".
#include <gtest/gtest.h>

#include <mutex>

#include "tandem/base/test_suspension.hpp"
#include "tandem/engine/kxo/test_bench.hpp"

namespace tandem::engine::kxo {
namespace {

using detail::User;
using detail::UserRef;

/// A device with a board that the suspended thread uses, and one of another owner.
class Progress : public testing::Test {
 protected:
  static Options pool(int threads) {
    Options options;
    options.threads = threads;
    return options;
  }
  explicit Progress(int threads = 0) : device(pool(threads)) {}

  /// As an operation looks it up. It has no lock, but for the section.
  UserRef find(std::uint64_t id) {
    const std::scoped_lock section(rcu::rcu_default_domain());
    User* const user = device.device().users().find(id);
    return user != nullptr && user->try_acquire() ? UserRef(user) : UserRef();
  }
  /// Takes what is published in the ring, and checks it. No call, no lock.
  void follow() {
    for (const std::uint32_t end = mine.published(wanted); taken != end; ++taken) {
      ASSERT_TRUE(referee.check(taken, mine.move(wanted, taken)));
    }
  }
  void expect_suspended(long times) {
    if (times == 0) GTEST_SKIP() << "no signal after each instruction comes here";
    EXPECT_GT(times, 100);
  }

  TestDevice device;
  TestClient mine{device, 1, 0}, others{device, 2, 100};
  tandem_kxo_setup wanted = mine.setup(TANDEM_KXO_USER, kFirstFree);
  const std::uint64_t my_id = mine.add(wanted);
  const std::uint64_t other_id = others.add(others.setup(TANDEM_KXO_USER, TANDEM_KXO_USER));
  Referee referee;
  std::uint32_t taken = 0;
};

TEST_F(Progress, WhoIsStoppedAmidAMoveHoldsUpNoReaderAndNoOtherBoard) {
  std::uint32_t most = 0;
  const long times = Suspension::at_each_instruction(
      [&] {
        (void)mine.write(my_id, 15);
        (void)mine.run(TANDEM_OP_KXO_RESUME, my_id);  // the agent's answer
      },
      [&] {
        follow();
        most = std::max(most, taken);
        EXPECT_EQ(find(my_id)->id(), my_id);
        EXPECT_EQ(find(other_id)->board().state, TANDEM_KXO_USERS_TURN);
      });
  follow();
  EXPECT_EQ(taken, 2u);
  expect_suspended(times);
}

TEST_F(Progress, WhoIsStoppedAmidAnUpdateOfTheTableHoldsUpNoLookUp) {
  (void)mine.release(mine.add(mine.setup(0, 0)));  // what is made once is there
  const auto another = mine.setup(0, 0);
  const long times = Suspension::at_each_instruction(
      [&] { EXPECT_EQ(mine.release(mine.add(another)), TANDEM_STATUS_OK); },
      [&] {
        EXPECT_EQ(find(other_id)->id(), other_id);
        EXPECT_EQ(find(my_id)->id(), my_id);
        EXPECT_FALSE(find(0));
      });
  expect_suspended(times);
}

TEST_F(Progress, WhoIsStoppedAmidAReferenceHoldsUpNobodyElsesReference) {
  const UserRef held = find(my_id);
  const long times = Suspension::at_each_instruction([&] { EXPECT_EQ(find(my_id)->id(), my_id); },
                                                     [&] { EXPECT_EQ(find(my_id)->id(), my_id); });
  expect_suspended(times);
}

TEST_F(Progress, AClientThatIsStoppedAmidReadingHoldsUpNoPublication) {
  const auto agents = others.setup(kFirstFree, kLastFree);
  const UserRef board = find(others.add(agents));
  detail::AgentCache cache(device.agents);
  detail::Clock::time_point due;
  std::uint32_t read = 0;
  const auto step = [&] { return board->step(cache, due); };
  (void)step();
  const long times = Suspension::at_each_instruction(
      [&] {
        for (const std::uint32_t end = others.published(agents); read != end; ++read) {
          EXPECT_EQ(others.move(agents, read) >> TANDEM_KXO_MOVE_NUMBER_SHIFT, read);
        }
        (void)others.take(agents, read);
      },
      [&] {
        const std::uint32_t before = others.published(agents);
        const std::uint32_t given = std::atomic_ref(others.ring(agents).taken).load();
        const bool moved = step() == User::Step::kMoved;
        EXPECT_EQ(others.published(agents), before + (moved ? 1 : 0));
        EXPECT_EQ(moved, before - given < TestClient::kCapacity);
      });
  expect_suspended(times);
}

/// With a pool, whose lists are the one thing that many wait for.
class PoolProgress : public Progress {
 protected:
  PoolProgress() : Progress(1) {}
};

TEST_F(PoolProgress, WhoIsStoppedAmidTheListsHoldsUpMovesButNoReaderAndNoLookUp) {
  const UserRef board = find(my_id);
  ASSERT_EQ(mine.write(my_id, 15), TANDEM_STATUS_OK);
  const long times = Suspension::at_each_instruction(
      [&] {
        for (int i = 0; i < 10; ++i) device.device().pool().kick(*board);
      },
      [&] {
        follow();
        EXPECT_EQ(find(other_id)->board().state, TANDEM_KXO_USERS_TURN);
      });
  await([&] { return mine.published(wanted) == 2; });
  follow();
  expect_suspended(times);
}

}  // namespace
}  // namespace tandem::engine::kxo
