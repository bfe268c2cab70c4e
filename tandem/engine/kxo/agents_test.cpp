// SPDX-License-Identifier: Apache-2.0
/// What a thread keeps of agents.
#include "tandem/engine/kxo/detail/agents.hpp"

#include <new>

#include "tandem/engine/kxo/test_bench.hpp"

namespace tandem::engine::kxo {
namespace {

constexpr std::uint8_t kUnprepared = kLastFree;  ///< what it needs is never there

/// As TestAgents, on boards whose goal is 3. Counts the agents that it makes.
class CountedAgents final : public AgentSource {
 public:
  bool knows(std::uint8_t player) const override { return all.knows(player); }
  std::unique_ptr<Agent> make(std::uint8_t player, const tandem::kxo::Rules& rules,
                              std::size_t memory_bytes) const override {
    if (rules.goal() != 3) return nullptr;
    if (lacks_memory) throw std::bad_alloc();
    ++made;
    if (forgetful) return std::make_unique<Forgetful>();
    return all.make(player, rules, memory_bytes);
  }
  bool needs_preparation(std::uint8_t player) const override { return player == kUnprepared; }
  std::shared_ptr<const void> prepare(std::uint8_t, const tandem::kxo::Rules&) const override {
    workshop.pass();
    return nullptr;
  }

  TestAgents all;
  mutable Gate workshop;
  mutable int made = 0;
  bool lacks_memory = false;
  bool forgetful = false;

 private:
  class Forgetful final : public Agent {  // never has memory to think
    Result<int> choose(const tandem::kxo::Position&, const Game&) override {
      return errno_error(ENOMEM);
    }
  };
};

class AgentCacheTest : public testing::Test {
 protected:
  ~AgentCacheTest() override { agents->workshop.open(); }

  auto ask(std::uint8_t player, const tandem::kxo::Rules& rules) {
    return cache.choose(player, rules, {}, {}, kept);
  }
  /// Asks `player` in more games than a cache has places for, those of `goal`.
  template <class Expect>
  void ask_in_many_games(std::uint8_t player, int goal, Expect expect) {
    for (int width = goal; width <= 8; ++width) {
      for (int height = goal; height <= 8; ++height) {
        expect(ask(player, *tandem::kxo::Rules::make(width, height, goal)));
      }
    }
  }

  const tandem::kxo::Rules standard = tandem::kxo::Rules::standard();
  const std::shared_ptr<CountedAgents> agents = std::make_shared<CountedAgents>();
  detail::Preparations preparations{agents, 16, [] {}};
  detail::AgentCache cache{agents, &preparations};
  detail::KeptAgents kept;
};

TEST_F(AgentCacheTest, AnAgentIsMadeOnce) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(kFirstFree, standard)->value(), 0);
  EXPECT_EQ(agents->made, 1);
}

TEST_F(AgentCacheTest, WhoWasAskedLongestAgoGoes) {
  (void)ask(kFirstFree, standard);
  ask_in_many_games(kFirstFree, 3, [](const auto& cell) { EXPECT_TRUE(cell->has_value()); });
  const int before = agents->made;
  (void)ask(kFirstFree, standard);
  EXPECT_EQ(agents->made, before + 1);
}

TEST_F(AgentCacheTest, WhoLacksMemoryForAMomentIsAskedAgain) {
  agents->lacks_memory = true;
  EXPECT_THROW(ask(kFirstFree, standard), std::bad_alloc);
  agents->lacks_memory = false;
  EXPECT_EQ(ask(kFirstFree, standard)->value(), 0);
}

TEST_F(AgentCacheTest, WhoLacksMemoryForAThoughtIsAskedAgain) {
  agents->forgetful = true;
  EXPECT_THROW(ask(kFirstFree, standard), std::bad_alloc);
}

// Its client may have asked for more than there is.
TEST_F(AgentCacheTest, WhoMayKeepMoreThanThereIsCannotPlay) {
  kept.memory_bytes = 4096;
  agents->lacks_memory = true;
  EXPECT_EQ(ask(kFirstFree, standard)->error(), errno_error(EINVAL).error());
  agents->lacks_memory = false;
  agents->forgetful = true;
  EXPECT_EQ(ask(kFirstFree, standard)->error(), errno_error(ENOMEM).error());
}

TEST_F(AgentCacheTest, AgentsThatDoNotPlayTakeNoPlace) {
  (void)ask(kFirstFree, standard);
  ask_in_many_games(kFirstFree, 4, [](const auto& cell) {
    EXPECT_EQ(cell->error(), errno_error(EINVAL).error());
  });
  (void)ask(kFirstFree, standard);
  EXPECT_EQ(agents->made, 1);
}

TEST_F(AgentCacheTest, AgentsThatAreNotPreparedTakeNoPlace) {
  (void)ask(kFirstFree, standard);
  ask_in_many_games(kUnprepared, 3, [](const auto& cell) { EXPECT_FALSE(cell); });
  (void)ask(kFirstFree, standard);
  EXPECT_EQ(agents->made, 1);
}

}  // namespace
}  // namespace tandem::engine::kxo
