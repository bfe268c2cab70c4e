// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/agent.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <bit>
#include <new>
#include <string>

namespace tandem::kxo {
namespace {

using namespace std::chrono_literals;

/// The cells of a game that `agent` plays against itself.
std::string played(Agent& agent, GameKey key) {
  std::string cells;
  Position position;
  agent.begin(key);
  while (agent.rules().outcome(position) == Outcome::kOpen) {
    const int cell = *agent.choose(position);
    cells += static_cast<char>('a' + cell);
    position = position.after(cell);
  }
  return cells;
}

/// Answers whatever it is told to.
class Broken final : public Agent {
 public:
  Broken(const Rules& rules, int answer) : Agent(rules), answer_(answer) {}

 private:
  Result<int> do_choose(const Position&, const Budget&) override { return answer_; }
  int answer_;
};

/// Has no memory to begin, or to move.
class Greedy final : public Agent {
 public:
  using Agent::Agent;
  bool begins = true, moves = true;

 private:
  void do_begin() override {
    if (!begins) throw std::bad_alloc();
  }
  Result<int> do_choose(const Position&, const Budget&) override {
    if (!moves) throw std::bad_alloc();
    return 0;
  }
};

const AgentRegistration greedy(
    {"test-greedy", "for tests",
     [](const Rules& rules, AgentOptions& options) -> Result<std::unique_ptr<Agent>, std::string> {
       if (options.number("now", 0, 0, 1) == 1) throw std::bad_alloc();
       return std::unique_ptr<Agent>(std::make_unique<Greedy>(rules));
     }});

TEST(AgentTest, AThoughtCanBeStopped) {
  const Rules large = *Rules::make(8, 8, 6);
  const std::atomic<bool> stop{true};
  for (const char* text : {"mcts:time=3600s", "mcts:time=3600s,threads=2", "negamax:time=3600s",
                           "mcts:iterations=1000000000000"}) {
    const auto agent = *make_agent(text, large);
    EXPECT_TRUE(agent->choose({}, {0ns, 0, &stop})) << text;
  }
  const auto silent = *make_agent("external:timeout=3600s,command=sleep 3600", large);
  EXPECT_FALSE(silent->choose({}, {0ns, 0, &stop}));
  EXPECT_EQ(tighter({1ms, 0, &stop}, {}).stop, &stop);
  EXPECT_EQ(tighter({}, {1ms, 0, &stop}).stop, &stop);
}

TEST(AgentTest, WhoHasNoMemoryGivesNoMove) {
  const auto no_memory = std::make_error_code(std::errc::not_enough_memory);
  Greedy agent(Rules::standard());
  agent.moves = false;
  EXPECT_EQ(agent.choose({}).error(), no_memory);
  agent.moves = true;
  agent.begins = false;
  agent.begin({1, 2});
  EXPECT_EQ(agent.choose({}).error(), no_memory);
  agent.begins = true;
  agent.begin({1, 2});
  EXPECT_TRUE(agent.choose({}));
  EXPECT_EQ(make_agent("test-greedy:now=1", Rules::standard()).error(),
            "test-greedy: there is not enough memory for it");
}

TEST(AgentTest, TheTighterLimitCountsAndZeroIsNone) {
  EXPECT_EQ(tighter({1ms, 0}, {0ns, 7}), (Budget{1ms, 7}));
  EXPECT_EQ(tighter({1ms, 9}, {2ms, 7}), (Budget{1ms, 7}));
  EXPECT_EQ(tighter({}, {}), Budget{});
  EXPECT_TRUE(Budget{}.unlimited());
  EXPECT_FALSE((Budget{1ms, 0}).unlimited());
  EXPECT_FALSE((Budget{0ns, 1}).unlimited());
}

TEST(AgentTest, IsAskedOnlyAboutPositionsOfOpenGames) {
  const auto agent = *make_agent("random", *Rules::make(3, 3, 3));
  const auto invalid = std::make_error_code(std::errc::invalid_argument);
  for (const Position& position : {Position{0b111, 0b11000},              // O has won
                                   Position{0b1, 0b1},                    // two stones on one cell
                                   Position{0b11, 0},                     // X did not move
                                   Position{0, 0b1},                      // X began
                                   Position{cell_bit(9), 0},              // beside the board
                                   Position{0b101100011, 0b10011100}}) {  // full
    EXPECT_EQ(agent->choose(position).error(), invalid) << position.o << ' ' << position.x;
  }
  EXPECT_TRUE(agent->choose({}));
}

TEST(AgentTest, AnAnswerThatIsNoFreeCellIsAnError) {
  for (const int answer : {-1, 16, 64, 1000, 5}) {
    Broken agent(Rules::standard(), answer);
    EXPECT_EQ(agent.choose(Position{}.after(5)).error(),
              std::make_error_code(std::errc::protocol_error));
  }
}

TEST(AgentRegistryTest, TellsTheOptionsOfEachKind) {
  for (const AgentKind& kind : agent_kinds()) {
    const auto options = options_of(kind);
    EXPECT_EQ(options.empty(),
              kind.name == "random" || kind.name == "perfect" || kind.name == "copycat")
        << kind.name;
    if (kind.name != "td") continue;
    ASSERT_FALSE(options.empty());
    EXPECT_EQ(options[0].name, "model");
    EXPECT_EQ(options[0].fallback, "TEXT");
  }
}

TEST(AgentRegistryTest, KnowsAgentsByNameInOrder) {
  std::vector<std::string> names;
  for (const AgentKind& kind : agent_kinds()) {
    names.emplace_back(kind.name);
    EXPECT_FALSE(kind.summary.empty());
  }
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_NE(std::find(names.begin(), names.end(), "random"), names.end());
}

// The file is in examples/agents, and named nowhere.
TEST(AgentRegistryTest, KnowsAgentsFromOutsideOfTheLibrary) {
  const auto agent = *make_agent("copycat", Rules::standard());
  EXPECT_EQ(*agent->choose(Position{}.after(1)), 14);
}

TEST(AgentRegistryTest, SaysWhatIsWrongWithADescription) {
  EXPECT_EQ(make_agent("radnom", Rules::standard()).error().substr(0, 30),
            "no agent 'radnom'; there are: ");
  EXPECT_EQ(make_agent("", Rules::standard()).error().substr(0, 12), "no agent '';");
  EXPECT_EQ(make_agent("random:x=1", Rules::standard()).error(),
            "random: no option 'x'; there are none");
  EXPECT_EQ(make_agent("random:x", Rules::standard()).error(), "random: 'x' is no NAME=VALUE");
  EXPECT_TRUE(make_agent("random:", Rules::standard()));
}

TEST(RandomAgentTest, TakesEveryFreeCellEquallyOften) {
  const auto agent = *make_agent("random", *Rules::make(3, 3, 3));
  const Position position = Position{}.after(0).after(4);
  std::array<int, 9> counts{};
  for (std::uint64_t game = 0; game < 7'000; ++game) {
    agent->begin({1, game});
    ++counts.at(static_cast<std::size_t>(*agent->choose(position)));
  }
  for (int cell = 0; cell < 9; ++cell) {
    const bool taken = cell == 0 || cell == 4;
    EXPECT_NEAR(counts.at(static_cast<std::size_t>(cell)), taken ? 0 : 1'000, taken ? 0 : 150);
  }
}

// Upstream's games shared one generator: what one played changed the others.
TEST(RandomAgentTest, GamesDoNotDisturbEachOther) {
  const Rules rules = Rules::standard();
  const auto alone = *make_agent("random", rules);
  const std::string first = played(*alone, {3, 1}), second = played(*alone, {3, 2});
  EXPECT_NE(first, second);
  // Two at a time, move by move.
  const auto a = *make_agent("random", rules), b = *make_agent("random", rules);
  a->begin({3, 1});
  b->begin({3, 2});
  Position of_a, of_b;
  std::string cells_of_a, cells_of_b;
  for (bool open = true; open;) {
    open = false;
    for (const auto& [agent, position, cells] :
         {std::tuple(a.get(), &of_a, &cells_of_a), std::tuple(b.get(), &of_b, &cells_of_b)}) {
      if (rules.outcome(*position) != Outcome::kOpen) continue;
      open = true;
      const int cell = *agent->choose(*position);
      *cells += static_cast<char>('a' + cell);
      *position = position->after(cell);
    }
  }
  EXPECT_EQ(cells_of_a, first);
  EXPECT_EQ(cells_of_b, second);
}

}  // namespace
}  // namespace tandem::kxo
