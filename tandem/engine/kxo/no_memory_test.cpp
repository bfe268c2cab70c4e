// SPDX-License-Identifier: Apache-2.0
/// What becomes of boards, quotas and threads where memory runs out.
#include <climits>
#include <new>

#include "tandem/base/test_no_memory.hpp"
#include "tandem/engine/kxo/test_bench.hpp"

namespace tandem::engine::kxo {
namespace {

/// Runs `what` with room for no allocation, for one, for two, … until it is done and needs no more.
/// Returns: how often it lacked memory.
int with_ever_more_memory(const std::function<bool()>& what) {
  for (int most = 0;;) {
    allocations_left = most;
    const bool done = what();
    const bool enough = allocations_left > 0;
    allocations_left = INT_MAX;
    if (done && enough) return most;
    if (!enough) {
      ++most;
    } else {
      std::this_thread::yield();  // it waits for somebody else
    }
  }
}

/// Agents that have to be prepared and are large; where `starve`, who prepares one has no memory
/// afterwards.
class HungryAgents final : public AgentSource {
 public:
  bool knows(std::uint8_t player) const override { return all.knows(player); }
  std::unique_ptr<Agent> make(std::uint8_t player, const tandem::kxo::Rules& rules,
                              std::size_t memory_bytes) const override {
    std::vector<std::unique_ptr<int>> parts(100);
    for (auto& part : parts) part = std::make_unique<int>();
    return all.make(player, rules, memory_bytes);
  }
  bool needs_preparation(std::uint8_t) const override { return true; }
  std::shared_ptr<const void> prepare(std::uint8_t, const tandem::kxo::Rules&) const override {
    allocations_left = INT_MAX;
    auto made = std::make_shared<const int>(0);
    if (starve) allocations_left = 0;
    return made;
  }

  TestAgents all;
  bool starve = false;
};

class NoMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!kRunsOut) GTEST_SKIP() << "AddressSanitizer's operators are in the way";
  }
};

TEST_F(NoMemory, GetIdThatRunsOutOfItTakesNothing) {
  TestDevice device;
  TestClient client(device);
  const auto wanted = client.setup(kFirstFree, TANDEM_KXO_USER);
  int made = 0;
  const int lacked = with_ever_more_memory([&] {
    const std::uint32_t before = device.device().live();
    try {
      if (client.get_id(wanted).status != TANDEM_STATUS_OK) throw std::bad_alloc();
      ++made;
      return true;
    } catch (const std::bad_alloc&) {
      const int left = std::exchange(allocations_left, INT_MAX);
      EXPECT_EQ(device.device().live(), before);
      allocations_left = left;
      return false;
    }
  });
  EXPECT_GE(lacked, 1);
  EXPECT_EQ(device.device().live(), static_cast<std::uint32_t>(made));
  await([&] {
    rcu::rcu_barrier();
    return device.device().objects() == static_cast<std::uint64_t>(made);
  });
}

// On the pool's threads nobody else would catch it.
TEST_F(NoMemory, ABoardThatLacksItIsAskedAgainAndLosesNoMove) {
  Options options;
  options.threads = 0;
  const auto agents = std::make_shared<HungryAgents>();
  options.agents = agents;
  TestDevice device(options);
  TestClient client(device);
  const auto wanted = client.setup(kFirstFree, kLastFree);
  const std::uint64_t id = client.add(wanted);
  detail::Preparations preparations(agents, 16, [] {});
  detail::AgentCache cache(agents, &preparations);
  detail::Owner& owner = static_cast<detail::Owner&>(client.session());
  const detail::UserRef board = owner.find(id);
  const int lacked = with_ever_more_memory([&] {
    const std::uint32_t before = client.published(wanted);
    (void)device.device().pool().run_here(*board, cache);
    const std::uint32_t now = client.published(wanted);
    const bool full = now == TestClient::kCapacity;
    return now > before || full || client.state(wanted) == TANDEM_KXO_USERS_TURN;
  });
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_AGENTS_TURN) << "a player is left to the client";
  EXPECT_GE(lacked, 100);
  Referee referee;
  for (std::uint32_t i = 0; i < client.published(wanted); ++i) {
    EXPECT_TRUE(referee.check(i, client.move(wanted, i)));
  }
}

TEST_F(NoMemory, NoAgentOfOursIsTakenForOneThatDoesNotPlay) {
  const auto agents = detail::registered_agents();
  const auto rules = tandem::kxo::Rules::standard();
  for (const std::uint8_t player : {TANDEM_KXO_MCTS, TANDEM_KXO_NEGAMAX, TANDEM_KXO_RANDOM}) {
    lacks_once = true;
    int most = 0;
    for (bool lacked = true; lacked; ++most) {
      std::unique_ptr<Agent> made;
      bool threw = false;
      allocations_left = most;
      try {
        made = agents->make(player, rules, 0);
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      lacked = std::exchange(allocations_left, INT_MAX) == INT_MAX;
      EXPECT_TRUE(made != nullptr || threw) << int{player} << " after " << most;
    }
    lacks_once = false;
    EXPECT_GT(most, 1) << int{player};
  }
}

TEST_F(NoMemory, WhoPreparesAgentsNeedsNoneForItself) {
  Options options;
  options.threads = 1;
  const auto agents = std::make_shared<HungryAgents>();
  agents->starve = true;
  options.agents = agents;
  TestDevice device(options);
  TestClient client(device);
  for (std::uint8_t width = 3; width < 10; ++width) {  // more than are kept
    auto wanted = client.setup(kFirstFree, TANDEM_KXO_USER);
    wanted.width = width;
    wanted.height = wanted.goal = 3;
    (void)client.add(wanted);
    await([&] { return client.published(wanted) == 1; });
  }
}

}  // namespace
}  // namespace tandem::engine::kxo
