// SPDX-License-Identifier: Apache-2.0
/// Agents of the device that keep what they find out from move to move.
#include <malloc.h>

#include <array>
#include <string>

#include "tandem/engine/kxo/test_bench.hpp"
#include "tandem/kxo/agent.hpp"

namespace tandem::engine::kxo {
namespace {

using tandem::kxo::Outcome;
using tandem::kxo::Position;
using tandem::kxo::Rules;

constexpr std::uint32_t kWork = 300;
constexpr std::uint32_t kKib = 64;
// What docs/kxo-engines.md says of so much memory.
constexpr const char* kMcts = "mcts:nodes=512";
constexpr const char* kNegamax = "negamax:table=11";

/// A board as its client can follow it, with agents of its own.
class Follower {
 public:
  Follower(const Rules& rules, const char* o, const char* x, std::uint64_t seed)
      : rules_(rules), seed_(seed) {
    agents_[0] = tandem::kxo::make_agent(o, rules).value();
    agents_[1] = tandem::kxo::make_agent(x, rules).value();
    forget();
  }
  void forget() {
    for (auto& agent : agents_) agent->begin({seed_, game_});
  }
  int next() {
    const std::size_t side = position_.plies() % 2 == 0 ? 0 : 1;
    const int cell = agents_[side]->choose(position_, {std::chrono::seconds(60), kWork}).value();
    position_ = position_.after(cell);
    if (rules_.outcome(position_) != Outcome::kOpen) {
      position_ = {};
      ++game_;
      forget();
    }
    return cell;
  }

 private:
  const Rules rules_;
  const std::uint64_t seed_;
  std::uint64_t game_ = 0;
  Position position_;
  std::unique_ptr<tandem::kxo::Agent> agents_[2];
};

class Memory : public testing::Test {
 protected:
  static Options options() {
    Options options;
    options.threads = 0;
    options.agents = detail::registered_agents();
    options.memory_kib_per_owner = 2 * 1024;
    return options;
  }
  /// On five in a row of 6 by 6, where searches do not come to an end.
  tandem_kxo_setup setup(std::uint8_t o, std::uint8_t x, std::uint32_t memory_kib) {
    auto wanted = client.setup(o, x);
    wanted.width = wanted.height = 6;
    wanted.goal = 5;
    wanted.work = kWork;
    wanted.seed = 7;
    wanted.memory_kib = memory_kib;
    return wanted;
  }
  /// Until there are `count` moves.
  void go_on(const tandem_kxo_setup& wanted, std::uint64_t id, std::uint32_t count) {
    while (client.published(wanted) < count) {
      ASSERT_EQ(client.run(TANDEM_OP_KXO_RESUME, id).status, TANDEM_STATUS_OK);
    }
  }
  std::vector<int> moves(const tandem_kxo_setup& wanted, std::uint32_t count) {
    const std::uint64_t id = client.add(wanted);
    go_on(wanted, id, count);
    std::vector<int> cells;
    for (std::uint32_t i = 0; i < count; ++i) {
      cells.push_back(static_cast<int>(tandem_kxo_move_cell(client.move(wanted, i))));
    }
    EXPECT_EQ(client.release(id), TANDEM_STATUS_OK);
    return cells;
  }

  const Rules rules = Rules::make(6, 6, 5).value();
  TestDevice device{options()};
  TestClient client{device};
};

TEST_F(Memory, MovesAreThoseOfTheSameAgentsInTheClient) {
  for (const auto& [o, x, at_o, at_x] :
       {std::tuple{TANDEM_KXO_MCTS, TANDEM_KXO_NEGAMAX, kMcts, kNegamax},
        {TANDEM_KXO_NEGAMAX, TANDEM_KXO_MCTS, kNegamax, kMcts},
        {TANDEM_KXO_MCTS, TANDEM_KXO_RANDOM, kMcts, "random"}}) {
    const auto wanted = setup(static_cast<std::uint8_t>(o), static_cast<std::uint8_t>(x), kKib);
    const std::vector<int> made = moves(wanted, 100);  // more than two games
    Follower follower(rules, at_o, at_x, wanted.seed);
    for (std::size_t i = 0; i < made.size(); ++i) ASSERT_EQ(made[i], follower.next()) << i;
  }
}

TEST_F(Memory, WithoutItEachMoveIsAsTheFirst) {
  EXPECT_NE(moves(setup(TANDEM_KXO_MCTS, TANDEM_KXO_MCTS, kKib), 60),
            moves(setup(TANDEM_KXO_MCTS, TANDEM_KXO_MCTS, 0), 60));
}

TEST_F(Memory, NewPermissionsMakeAgentsForget) {
  auto wanted = setup(TANDEM_KXO_MCTS, TANDEM_KXO_MCTS, kKib);
  wanted.capacity = 8;
  const std::uint64_t id = client.add(wanted);
  Follower follower(rules, kMcts, kMcts, wanted.seed);
  for (std::uint32_t taken = 0; taken < 96; taken += 8) {
    go_on(wanted, id, taken + 8);
    for (std::uint32_t i = taken; i < taken + 8; ++i) {
      ASSERT_EQ(tandem_kxo_move_cell(client.move(wanted, i)), follower.next()) << i;
    }
    (void)client.take(wanted, taken + 8);
    ASSERT_EQ(client.set_players(id, TANDEM_KXO_MCTS, TANDEM_KXO_MCTS), TANDEM_STATUS_OK);
    follower.forget();
  }
}

TEST_F(Memory, ThereIsAQuotaForEachOwner) {
  const auto kMost = options().memory_kib_per_owner;
  auto half = setup(0, 0, kMost / 2), more = setup(0, 0, kMost / 2 + 1);
  const std::uint64_t first = client.add(half);
  EXPECT_EQ(client.get_id(more).status, TANDEM_STATUS_NO_ROOM);
  (void)client.add(setup(0, 0, kMost / 2));
  EXPECT_EQ(client.get_id(setup(0, 0, 1)).status, TANDEM_STATUS_NO_ROOM);
  EXPECT_EQ(client.get_id(setup(0, 0, 0xFFFF'FFFF)).status, TANDEM_STATUS_NO_ROOM);
  (void)client.add(setup(0, 0, 0));
  EXPECT_EQ(client.release(first), TANDEM_STATUS_OK);
  (void)client.add(setup(0, 0, kMost / 2));
  TestClient other(device, 1, 64);
  auto wanted = other.setup(0, 0);
  wanted.memory_kib = kMost;
  (void)other.add(wanted);
}

std::int64_t allocated_bytes() {
  const auto info = ::mallinfo2();
  return static_cast<std::int64_t>(info.uordblks + info.hblkhd);
}

TEST_F(Memory, AgentsKeepNoMoreThanTheyMay) {
  if (allocated_bytes() == 0) GTEST_SKIP() << "the allocator does not say what is in use";
  constexpr std::int64_t kMay = 1024;
  for (const auto player : {TANDEM_KXO_MCTS, TANDEM_KXO_NEGAMAX}) {
    auto wanted = setup(static_cast<std::uint8_t>(player), static_cast<std::uint8_t>(player), kMay);
    wanted.work = 2'000;
    wanted.capacity = 8;
    const std::uint64_t id = client.add(wanted);
    const std::int64_t before = allocated_bytes();
    std::int64_t most = 0;
    for (std::uint32_t number = 1; number < 24; ++number) {
      go_on(wanted, id, number);
      (void)client.take(wanted, client.published(wanted));
      most = std::max(most, allocated_bytes() - before);
    }
    EXPECT_LE(most, kMay * 1024 + 65536) << player;
    EXPECT_GE(most, kMay * 1024 / 8) << player << " keeps hardly anything";
    ASSERT_EQ(client.release(id), TANDEM_STATUS_OK);
    await([&] { return device.device().objects() == 0; });
    // A board's count goes before its memory does.
    await([&] { return allocated_bytes() - before <= 65536; });
  }
}

}  // namespace
}  // namespace tandem::engine::kxo
