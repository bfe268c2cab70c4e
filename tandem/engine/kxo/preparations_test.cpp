// SPDX-License-Identifier: Apache-2.0
/// Agents that need something first, which takes long.
#include <algorithm>
#include <new>

#include "tandem/engine/kxo/test_bench.hpp"

namespace tandem::engine::kxo {
namespace {

constexpr std::uint8_t kPrepared = kLastFree;  ///< plays when it is prepared

/// As TestAgents; what kPrepared needs is made in a workshop that somebody has to open. It plays on
/// boards whose goal is 3, and needs nothing to say that it does not play on others.
class SlowAgents final : public AgentSource {
 public:
  bool knows(std::uint8_t player) const override { return all.knows(player); }
  std::unique_ptr<Agent> make(std::uint8_t player, const tandem::kxo::Rules& rules,
                              std::size_t memory_bytes) const override {
    if (player == kPrepared && rules.goal() != 3) return nullptr;
    if (player == kPrepared) {
      agents_made.fetch_add(1);
      EXPECT_TRUE(last_is_there()) << "not prepared, or not kept";
    }
    return all.make(player, rules, memory_bytes);
  }
  bool needs_preparation(std::uint8_t player) const override { return player == kPrepared; }
  std::shared_ptr<const void> prepare(std::uint8_t,
                                      const tandem::kxo::Rules& rules) const override {
    if (rules.goal() != 3) return nullptr;
    prepared.fetch_add(1);
    {
      const std::lock_guard lock(mutex);
      order.push_back(rules.width());
    }
    workshop.pass();
    if (fail) throw std::bad_alloc();
    auto made = std::make_shared<const int>(0);
    const std::lock_guard lock(mutex);
    last = made;
    return made;
  }

  TestAgents all;
  mutable Gate workshop;
  mutable std::atomic<int> agents_made{0};
  mutable std::atomic<int> prepared{0};
  std::atomic<bool> fail{false};
  mutable std::mutex mutex;
  mutable std::vector<int> order;  // widths of the boards, as they came to the workshop

 private:
  bool last_is_there() const {
    const std::lock_guard lock(mutex);
    return !last.expired();
  }
  mutable std::weak_ptr<const int> last;  // what the workshop made last
};

class PreparationsTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kMost = 6;

  Options options() {
    Options options;
    options.threads = 1;
    options.agents = agents;
    options.preparations_per_tenant = kMost;
    return options;
  }
  ~PreparationsTest() override { agents->workshop.open(); }

  /// A board of that width, which others of other widths have no use for.
  static tandem_kxo_setup wide(TestClient& client, std::uint8_t o, int width) {
    auto wanted = client.setup(o, kFirstFree);
    wanted.width = static_cast<std::uint8_t>(width);
    wanted.height = wanted.goal = 3;
    return wanted;
  }

  const std::shared_ptr<SlowAgents> agents = std::make_shared<SlowAgents>();
  TestDevice device{options()};
  TestClient client{device};
};

TEST_F(PreparationsTest, OtherBoardsGoOnMeanwhile) {
  std::vector<tandem_kxo_setup> boards;
  for (int i = 0; i < 5; ++i) {
    boards.push_back(client.setup(kPrepared, kFirstFree));
    (void)client.add(boards.back());
  }
  agents->workshop.await(1);
  const auto other = client.setup(kFirstFree, kFirstFree);
  (void)client.add(other);
  await([&] { return client.published(other) == TestClient::kCapacity; });
  for (const auto& board : boards) EXPECT_EQ(client.published(board), 0u);
  agents->workshop.open();
  for (const auto& board : boards) {
    await([&] { return client.published(board) == TestClient::kCapacity; });
  }
  EXPECT_EQ(agents->prepared, 1) << "for all of them";
}

TEST_F(PreparationsTest, EachGameNeedsItsOwn) {
  agents->workshop.open();
  for (int round = 0; round < 3; ++round) {
    for (std::uint8_t width = 3; width < 13; ++width) {  // more than are kept
      auto wanted = client.setup(kPrepared, kFirstFree);
      wanted.width = wanted.height = width > 8 ? 8 : width;
      wanted.height = width > 8 ? width - 5 : width;
      wanted.goal = 3;
      const std::uint64_t id = client.add(wanted);
      await([&] { return client.published(wanted) >= 2; });
      ASSERT_EQ(client.release(id), TANDEM_STATUS_OK);
    }
  }
  EXPECT_GE(agents->prepared, 10);
}

TEST_F(PreparationsTest, WhoWaitsForItMayGo) {
  const std::uint64_t first = client.add(client.setup(kPrepared, 0));
  const std::uint64_t second = client.add(client.setup(kPrepared, 0));
  agents->workshop.await(1);
  EXPECT_EQ(client.release(second), TANDEM_STATUS_OK);
  EXPECT_EQ(client.release(first), TANDEM_STATUS_OK);
  agents->workshop.open();
  await([&] {
    rcu::rcu_barrier();
    return device.device().objects() == 0;
  });
}

TEST_F(PreparationsTest, AnotherPermissionNeedNotWaitForIt) {
  const auto wanted = client.setup(kPrepared, TANDEM_KXO_USER);
  const std::uint64_t id = client.add(wanted);
  agents->workshop.await(1);
  EXPECT_EQ(client.set_players(id, kFirstFree, TANDEM_KXO_USER), TANDEM_STATUS_OK);
  await([&] { return client.published(wanted) == 1; });
  EXPECT_EQ(client.move(wanted, 0) & 0xFF, 0u);
}

TEST_F(PreparationsTest, AgentsWithMemoryWaitForItToo) {
  auto wanted = client.setup(kPrepared, kPrepared);
  wanted.memory_kib = 8;
  (void)client.add(wanted);
  agents->workshop.await(1);
  EXPECT_EQ(client.published(wanted), 0u);
  agents->workshop.open();
  await([&] { return client.published(wanted) == TestClient::kCapacity; });
}

// A tenant could have what others need thrown away by asking for games that nobody plays.
TEST_F(PreparationsTest, GamesThatItDoesNotPlayTakeNoPlace) {
  agents->workshop.open();
  auto wanted = client.setup(kPrepared, kPrepared);
  wanted.memory_kib = 8;  // agents of its own, for whom it is asked for anew
  (void)client.add(wanted);
  await([&] { return client.published(wanted) == TestClient::kCapacity; });
  for (std::uint8_t width = 4; width <= 8; ++width) {  // more than are kept
    auto unplayed = client.setup(kPrepared, kFirstFree);
    unplayed.width = unplayed.height = width;
    unplayed.goal = 4;
    (void)client.add(unplayed);
    await([&] { return client.state(unplayed) == TANDEM_KXO_USERS_TURN; });
  }
  auto another = client.setup(kPrepared, kPrepared);
  another.memory_kib = 8;
  (void)client.add(another);
  await([&] { return client.published(another) == TestClient::kCapacity; });
  EXPECT_EQ(agents->prepared, 1);
}

// Nor does a thread of the pool make it then, while everybody waits.
TEST_F(PreparationsTest, WhereItFailsWhoWaitsHasItTriedAgain) {
  agents->fail = true;
  std::vector<tandem_kxo_setup> boards;
  for (int i = 0; i < 5; ++i) {
    boards.push_back(client.setup(kPrepared, kFirstFree));
    boards.back().memory_kib = i % 2 == 0 ? 0 : 8;
    (void)client.add(boards.back());
  }
  const auto other = client.setup(kFirstFree, kFirstFree);
  (void)client.add(other);
  await([&] { return client.published(other) == TestClient::kCapacity; });  // so all five wait
  agents->workshop.open();
  const auto given_up = [&] {
    return std::any_of(boards.begin(), boards.end(), [&](const auto& board) {
      return client.state(board) == TANDEM_KXO_USERS_TURN;
    });
  };
  await([&] { return agents->prepared >= 4 || given_up(); });
  ASSERT_FALSE(given_up()) << "a board has lost its agent";
  EXPECT_EQ(agents->agents_made, 0);

  agents->fail = false;
  for (const auto& board : boards) {
    await([&] { return client.published(board) == TestClient::kCapacity; });
  }
}

// Whoever has no room yet could keep everybody's preparations busy by asking again and again.
TEST_F(PreparationsTest, NothingIsPreparedForAGameThatIsRefused) {
  agents->workshop.open();
  Options limited = options();
  limited.users_per_tenant = 1;
  limited.users = 2;
  TestDevice small(limited);
  TestClient first(small, 1), second(small, 2, 100), third(small, 3, 200);
  const auto waiting = first.setup(kFirstFree, TANDEM_KXO_USER);
  const std::uint64_t id = first.add(waiting);
  EXPECT_EQ(first.get_id(wide(first, kPrepared, 5)).status, TANDEM_STATUS_NO_ROOM);
  auto nowhere = wide(second, kPrepared, 6);
  nowhere.ring = 64;  // no reserved memory
  EXPECT_EQ(second.get_id(nowhere).status, TANDEM_STATUS_BAD_RANGE);
  (void)second.add(second.setup(kFirstFree, TANDEM_KXO_USER));
  EXPECT_EQ(third.get_id(wide(third, kPrepared, 7)).status, TANDEM_STATUS_NO_ROOM);
  // What is prepared comes after what was asked for before.
  await([&] { return first.published(waiting) == 1; });
  ASSERT_EQ(first.set_players(id, kPrepared, kPrepared), TANDEM_STATUS_OK);
  await([&] { return first.published(waiting) == TestClient::kCapacity; });
  const std::lock_guard lock(agents->mutex);
  EXPECT_EQ(agents->order, std::vector{4});
}

TEST_F(PreparationsTest, WhoWaitsForManyIsRefusedMoreUntilOneIsThere) {
  TestClient other(device, 2, 100);
  const auto waiting = client.setup(kFirstFree, TANDEM_KXO_USER);
  const std::uint64_t id = client.add(waiting);
  for (int width = 3; width < 3 + static_cast<int>(kMost); ++width) {
    (void)client.add(wide(client, kPrepared, width));
  }
  const std::uint32_t live = device.device().live();
  const auto more = wide(client, kPrepared, 10);
  EXPECT_EQ(client.get_id(more).status, TANDEM_STATUS_NO_ROOM);
  EXPECT_EQ(client.set_players(id, kPrepared, TANDEM_KXO_USER), TANDEM_STATUS_NO_ROOM);
  EXPECT_EQ(client.board(id).player_o, kFirstFree);
  EXPECT_EQ(device.device().live(), live);
  (void)client.add(wide(client, kPrepared, 3));    // which it waits for already
  (void)client.add(wide(client, kFirstFree, 10));  // which needs nothing
  (void)other.add(wide(other, kPrepared, 10));     // who waits for nothing else
  agents->workshop.open();
  await([&] { return client.get_id(more).status == TANDEM_STATUS_OK; });
}

// It comes to that where what a board has been promised gave way to others.
TEST_F(PreparationsTest, WhoFindsNoRoomAmongWhatIsWaitedForAsksAgain) {
  agents->workshop.open();
  std::atomic<int> done{0};
  detail::Preparations preparations(agents, 1, [&] { done.fetch_add(1); });
  const auto tenant = std::make_shared<const int>(0);
  const auto first = *tandem::kxo::Rules::make(5, 3, 3), second = tandem::kxo::Rules::standard();
  detail::Preparations::Waiting waits[2];
  std::optional<Result<detail::Preparations::Thing>> found[2];
  while (!found[0] || !found[1]) {
    found[0] = preparations.find(tenant, kPrepared, first, waits[0]);
    found[1] = preparations.find(tenant, kPrepared, second, waits[1]);
  }
  for (const auto& thing : found) EXPECT_NE(thing->value(), nullptr);
  await([&] { return done == 2; });  // it is told after it is there
}

/// Where nobody plays, so that each thing is made once.
class PreparationsAlone : public testing::Test {
 protected:
  static constexpr int kLast = 20;

  ~PreparationsAlone() override { agents->workshop.open(); }

  /// One tenant wants games of these widths; while the first is being made another tenant wants
  /// one. Returns: the widths in the order in which they were made.
  std::vector<int> order_of(std::vector<int> firsts, int seconds) {
    const auto first = std::make_shared<const int>(1), second = std::make_shared<const int>(2);
    for (const int width : firsts) EXPECT_TRUE(announce(first, width));
    agents->workshop.await(1);
    EXPECT_TRUE(announce(second, seconds));
    agents->workshop.open();
    await([&] { return done >= 5; });
    EXPECT_TRUE(announce(first, kLast));  // behind whatever it waits for
    for (;; std::this_thread::yield()) {
      const std::lock_guard lock(agents->mutex);
      if (agents->order.back() == kLast) return agents->order;
    }
  }
  bool announce(const detail::Preparations::Tenant& tenant, int width) {
    return preparations.announce(tenant, kPrepared, *tandem::kxo::Rules::make(width, 3, 3));
  }

  const std::shared_ptr<SlowAgents> agents = std::make_shared<SlowAgents>();
  std::atomic<int> done{0};
  detail::Preparations preparations{agents, 6, [this] { done.fetch_add(1); }};
};

TEST_F(PreparationsAlone, TenantsTakeTurns) {
  // One was being made, and then its tenant had its turn.
  EXPECT_EQ(order_of({3, 4, 5, 6, 7, 8}, 9), (std::vector{3, 4, 9, 5, 6, 7, 8, kLast}));
}

TEST_F(PreparationsAlone, WhatTwoTenantsWaitForIsMadeOnceInTheTurnOfEither) {
  EXPECT_EQ(order_of({3, 4, 5, 6, 7}, 7), (std::vector{3, 4, 7, 5, 6, kLast}));
}

// Else a tenant that asks for game after game has others' made over and over.
TEST_F(PreparationsAlone, WhatSomebodyWaitsForIsThereWhenItAsksHoweverMuchIsMadeMeanwhile) {
  const auto patient = std::make_shared<const int>(1), busy = std::make_shared<const int>(2);
  const auto rules = *tandem::kxo::Rules::make(3, 3, 3);
  detail::Preparations::Waiting waiting;
  EXPECT_FALSE(preparations.find(patient, kPrepared, rules, waiting));
  for (int width = 4; width < 10; ++width)
    EXPECT_TRUE(announce(busy, width));  // more than are kept
  agents->workshop.open();
  await([&] { return done == 7; });
  auto found = preparations.find(patient, kPrepared, rules, waiting);
  ASSERT_TRUE(found) << "it is to be made again";
  ASSERT_NE(found->value(), nullptr);
  const std::weak_ptr<const void> thing = found->value();
  found.reset();
  EXPECT_TRUE(thing.expired()) << "nobody waits for it any more";
  EXPECT_EQ(agents->prepared, 7);
}

// A board of each of them plays; that nobody is held up by the real ones is the first test.
TEST(RegisteredAgentsTest, AreQuickOnceTheyArePrepared) {
  const auto agents = detail::registered_agents();
  const auto rules = tandem::kxo::Rules::standard();
  for (const std::uint8_t player : {TANDEM_KXO_PERFECT, TANDEM_KXO_TD, TANDEM_KXO_Q}) {
    ASSERT_TRUE(agents->needs_preparation(player)) << int{player};
    const auto thing = agents->prepare(player, rules);
    ASSERT_NE(thing, nullptr) << int{player};
    const auto uses = thing.use_count();
    const auto agent = agents->make(player, rules, 0);
    ASSERT_NE(agent, nullptr) << int{player};
    EXPECT_GT(thing.use_count(), uses) << int{player} << " made another one";
    // Nothing on boards that it does not play on.
    EXPECT_EQ(agents->prepare(player, *tandem::kxo::Rules::make(8, 8, 5)), nullptr);
  }
  for (const std::uint8_t player :
       {TANDEM_KXO_USER, TANDEM_KXO_MCTS, TANDEM_KXO_NEGAMAX, TANDEM_KXO_RANDOM}) {
    EXPECT_FALSE(agents->needs_preparation(player)) << int{player};
  }
}

}  // namespace
}  // namespace tandem::engine::kxo
