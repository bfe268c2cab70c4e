// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "tandem/engine/kxo/test_bench.hpp"

namespace tandem::engine::kxo {
namespace {

Options threads(int count) {
  Options options;
  options.threads = count;
  return options;
}

/// Has boards go on until `board` has published `moves`, taking them as they come.
void follow(TestClient& client, std::uint64_t id, const tandem_kxo_setup& wanted,
            std::uint32_t moves, Referee& referee) {
  for (std::uint32_t taken = 0; taken < moves;) {
    await([&] { return client.published(wanted) != taken; });
    for (const std::uint32_t end = client.published(wanted); taken != end; ++taken) {
      ASSERT_TRUE(referee.check(taken, client.move(wanted, taken)));
    }
    if (client.take(wanted, taken)) {
      ASSERT_EQ(client.run(TANDEM_OP_KXO_RESUME, id).status, TANDEM_STATUS_OK);
    }
  }
}

TEST(Pool, ABoardOfTwoAgentsPlaysByItself) {
  TestDevice device;
  TestClient client(device);
  const auto wanted = client.setup(kFirstFree, kLastFree);
  const std::uint64_t id = client.add(wanted);
  Referee referee;
  follow(client, id, wanted, 5000, referee);
  EXPECT_GE(client.board(id).games, 5000u / 16);
}

TEST(Pool, TheClientsMoveIsAnswered) {
  TestDevice device;
  TestClient client(device);
  const auto wanted = client.setup(TANDEM_KXO_USER, kFirstFree);
  const std::uint64_t id = client.add(wanted);
  ASSERT_EQ(client.write(id, 8), TANDEM_STATUS_OK);
  await([&] { return client.published(wanted) == 2; });
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_USERS_TURN);
  EXPECT_EQ(client.move(wanted, 1) & 0xFF, TANDEM_KXO_MOVE_X);
}

// The original walked over every user ten times a second.
TEST(Pool, TenThousandBoardsThatWaitAreNotLookedAt) {
  TestDevice device;
  TestClient client(device);
  std::vector<tandem_kxo_setup> boards;
  for (int i = 0; i < 10'000; ++i) {
    boards.push_back(client.setup(kFirstFree, TANDEM_KXO_USER));
    (void)client.add(boards.back());
  }
  for (const auto& board : boards) {
    await([&] { return client.state(board) == TANDEM_KXO_USERS_TURN; });
  }
  EXPECT_EQ(device.device().live(), 10'000u);
  // One more board plays many moves: nobody asks for a move of the others.
  const std::uint64_t before = device.agents->asked.load();
  EXPECT_EQ(before, 10'000u);
  const auto wanted = client.setup(kFirstFree, kLastFree);
  const std::uint64_t id = client.add(wanted);
  Referee referee;
  follow(client, id, wanted, 1000, referee);
  ASSERT_EQ(client.release(id), TANDEM_STATUS_OK);
  const std::uint64_t games = device.agents->asked.load() - before;
  EXPECT_LE(games, 1000u + 2 * TestClient::kCapacity);
}

TEST(Pool, ATenantWithManySlowBoardsLeavesOthersTheirTurns) {
  TestDevice device;
  TestClient many(device, 1, 0), one(device, 2, 100);
  std::vector<tandem_kxo_setup> slow;
  for (int i = 0; i < 20; ++i) {
    slow.push_back(many.setup(kSlow, kSlow));
    (void)many.add(slow.back());
  }
  const auto quick = one.setup(kFirstFree, kLastFree);
  const std::uint64_t id = one.add(quick);
  Referee referee;
  follow(one, id, quick, 1000, referee);
  std::uint32_t slow_moves = 0;
  for (const auto& board : slow) slow_moves += many.published(board);
  EXPECT_LE(slow_moves, 1000u);
}

TEST(Pool, BoardsOfOneTenantTakeTurns) {
  TestDevice device;
  TestClient client(device);
  std::vector<tandem_kxo_setup> boards;
  for (int i = 0; i < 10; ++i) {
    boards.push_back(client.setup(kSlow, kSlow));
    (void)client.add(boards.back());
  }
  for (const auto& board : boards) {
    await([&] { return client.published(board) >= 1; });
  }
}

TEST(Pool, AnAgentThatThinksHoldsUpNobodyElse) {
  TestDevice device(threads(2));
  TestClient client(device);
  const auto stuck = client.setup(kAtTheGate, 0);
  const std::uint64_t stuck_id = client.add(stuck);
  device.agents->gate.await(1);
  const auto wanted = client.setup(kFirstFree, kLastFree);
  const std::uint64_t id = client.add(wanted);
  Referee referee;
  follow(client, id, wanted, 300, referee);
  // Nor control calls for the same board.
  EXPECT_EQ(client.write(stuck_id, 0), TANDEM_STATUS_WRONG_TURN);
  EXPECT_EQ(client.board(stuck_id).published, 0u);
  EXPECT_EQ(client.set_players(stuck_id, TANDEM_KXO_USER, 0), TANDEM_STATUS_OK);
  EXPECT_EQ(client.write(stuck_id, 9), TANDEM_STATUS_OK);
  EXPECT_EQ(client.release(stuck_id), TANDEM_STATUS_OK);
  device.agents->gate.open();
}

TEST(Pool, AMoveThatWasThoughtOfForAnotherPermissionIsNotMade) {
  TestDevice device;
  TestClient client(device);
  const auto wanted = client.setup(kAtTheGate, TANDEM_KXO_USER);
  const std::uint64_t id = client.add(wanted);
  device.agents->gate.await(1);
  ASSERT_EQ(client.set_players(id, kLastFree, TANDEM_KXO_USER), TANDEM_STATUS_OK);
  device.agents->gate.open();
  await([&] { return client.published(wanted) == 1; });
  EXPECT_EQ(client.move(wanted, 0) & 0xFF, 15u);
}

TEST(Pool, AClientThatTakesNoMovesStallsItsOwnBoardOnly) {
  TestDevice device;
  TestClient client(device);
  const auto stalled = client.setup(kFirstFree, kLastFree);
  const std::uint64_t stalled_id = client.add(stalled);
  await([&] { return std::atomic_ref(client.ring(stalled).stalled).load() == 1; });
  EXPECT_EQ(client.published(stalled), TestClient::kCapacity);
  const auto wanted = client.setup(kFirstFree, kLastFree);
  const std::uint64_t id = client.add(wanted);
  Referee referee, other;
  follow(client, id, wanted, 1000, referee);
  EXPECT_EQ(client.published(stalled), TestClient::kCapacity);
  follow(client, stalled_id, stalled, 1000, other);
}

TEST(Pool, PacedBoardsMoveNoFasterThanTheyShould) {
  TestDevice device;
  TestClient client(device);
  auto wanted = client.setup(kFirstFree, kLastFree);
  wanted.moves_per_second = 500;
  const auto start = std::chrono::steady_clock::now();
  (void)client.add(wanted);
  await([&] { return client.published(wanted) >= 11; });
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(20));
}

TEST(Pool, PacedBoardsComeInTheOrderOfTheirTimes) {
  TestDevice device;
  TestClient client(device);
  std::mt19937 random(1);
  std::vector<std::pair<std::uint64_t, tandem_kxo_setup>> boards;
  for (int i = 0; i < 200; ++i) {
    auto wanted = client.setup(kFirstFree, kLastFree);
    wanted.moves_per_second = static_cast<std::uint16_t>(100 + random() % 400);
    boards.emplace_back(client.add(wanted), wanted);
    // One in three goes again while it waits for its time; some are asked to twice.
    if (i % 3 == 0) (void)client.release(boards[random() % boards.size()].first);
  }
  for (const auto& [id, wanted] : boards) {
    if (client.state(wanted) == TANDEM_KXO_GONE) continue;
    await([&, &w = wanted] { return client.published(w) >= 5; });
  }
}

TEST(Pool, TheSameSeedGivesTheSameMovesWhoeverAsksTheAgent) {
  Options with = threads(2), without = threads(0);
  with.agents = without.agents = detail::registered_agents();
  TestDevice pool(with), inline_device(without);
  TestClient first(pool), second(inline_device);
  std::vector<tandem_kxo_setup> boards;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    boards.push_back(first.setup(TANDEM_KXO_RANDOM, TANDEM_KXO_RANDOM));
    boards.back().seed = seed;
    (void)first.add(boards.back());
    const std::uint64_t id = second.add(boards.back());
    while (second.published(boards.back()) != TestClient::kCapacity) {
      ASSERT_EQ(second.run(TANDEM_OP_KXO_RESUME, id).status, TANDEM_STATUS_OK);
    }
  }
  std::uint32_t different = 0;
  for (const auto& board : boards) {
    await([&] { return first.published(board) == TestClient::kCapacity; });
    for (std::uint32_t i = 0; i < TestClient::kCapacity; ++i) {
      ASSERT_EQ(first.move(board, i), second.move(board, i)) << board.seed << " " << i;
      different += first.move(board, i) != first.move(boards[0], i) ? 1 : 0;
    }
  }
  EXPECT_GT(different, 1000u);  // of 2432
}

}  // namespace
}  // namespace tandem::engine::kxo
