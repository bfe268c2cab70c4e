// SPDX-License-Identifier: Apache-2.0
#include "tandem/trace/trace.hpp"

#include <algorithm>

#include "tandem/engine/kxo/test_bench.hpp"

namespace tandem::engine::kxo {
namespace {

using trace::Event;
using trace::Record;
using Arguments = std::array<std::uint64_t, 4>;

/// Without threads, and with events of games recorded.
class TracedGames : public testing::Test {
 protected:
  TracedGames() {
    Options options;
    options.threads = 0;
    device.emplace(std::move(options));
    client.emplace(*device);
    trace::enable(static_cast<trace::Categories>(trace::Category::kKxo));
  }
  ~TracedGames() override { trace::enable(trace::kNoCategories); }

  static std::uint64_t players(std::uint64_t o, std::uint64_t x) { return o | x << 8; }
  static std::vector<Record> records(Event event) {
    auto all = trace::snapshot();
    std::erase_if(all, [event](const Record& record) { return record.event != event; });
    return all;
  }

  std::optional<TestDevice> device;
  std::optional<TestClient> client;
};

// O's agent takes the first free cell, the client plays X below it, so that O wins with its third.
TEST_F(TracedGames, AGameTellsItsStory) {
  const auto wanted = client->setup(kFirstFree, TANDEM_KXO_USER);
  const std::uint64_t id = client->add(wanted);
  for (const std::uint32_t answer : {15u, 14u}) {
    ASSERT_EQ(client->run(TANDEM_OP_KXO_RESUME, id).status, TANDEM_STATUS_OK);
    ASSERT_EQ(client->write(id, answer), TANDEM_STATUS_OK);
  }
  EXPECT_TRUE(records(Event::kGameEnded).empty());
  ASSERT_EQ(client->run(TANDEM_OP_KXO_RESUME, id).status, TANDEM_STATUS_OK);

  const auto begun = records(Event::kGameBegun);
  ASSERT_EQ(begun.size(), 2u) << "the agent goes on with the next game";
  EXPECT_EQ(begun[0].arguments[1], 0u);
  EXPECT_EQ(begun[0].arguments[2], players(kFirstFree, TANDEM_KXO_USER));
  EXPECT_EQ(begun[1].arguments[1], 1u);
  const auto ended = records(Event::kGameEnded);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].arguments, (Arguments{id, 0, 1, 5})) << "won by O, after five moves";

  const auto moves = records(Event::kGameMove);
  const Arguments expected[] = {{id, 0, kFirstFree, 0}, {id, 15, TANDEM_KXO_USER, 1},
                                {id, 1, kFirstFree, 2}, {id, 14, TANDEM_KXO_USER, 3},
                                {id, 2, kFirstFree, 4}, {id, 0, kFirstFree, 5}};
  ASSERT_EQ(moves.size(), std::size(expected));
  for (std::size_t i = 0; i < moves.size(); ++i) EXPECT_EQ(moves[i].arguments, expected[i]) << i;
}

TEST_F(TracedGames, AnAgentThinksBetweenTheBeginAndTheEndOfASpan) {
  const auto wanted = client->setup(kFirstFree, TANDEM_KXO_USER);
  const std::uint64_t id = client->add(wanted);
  ASSERT_EQ(client->run(TANDEM_OP_KXO_RESUME, id).status, TANDEM_STATUS_OK);
  const auto begin = records(Event::kThinkBegin), end = records(Event::kThinkEnd);
  ASSERT_EQ(begin.size(), 1u);
  ASSERT_EQ(end.size(), 1u);
  EXPECT_EQ(begin[0].arguments[0], id);
  EXPECT_EQ(begin[0].arguments[1], kFirstFree);
  EXPECT_EQ(begin[0].arguments[3], 0u) << "the game's first move";
  EXPECT_EQ(end[0].arguments[0], id);
  EXPECT_EQ(end[0].arguments[1], 0u) << "the cell";
  EXPECT_EQ(begin[0].thread, end[0].thread);
  EXPECT_LE(begin[0].time_ns, end[0].time_ns);
  EXPECT_LE(end[0].time_ns, records(Event::kGameMove).at(0).time_ns);
}

TEST_F(TracedGames, PermissionsAndTheEndOfAnOwnerAreTold) {
  const std::uint64_t id = client->add(client->setup(TANDEM_KXO_USER, TANDEM_KXO_USER));
  (void)client->add(client->setup(TANDEM_KXO_USER, TANDEM_KXO_USER));
  ASSERT_EQ(client->set_players(id, kFirstFree, kLastFree), TANDEM_STATUS_OK);
  EXPECT_EQ(client->set_players(id + 100, kFirstFree, kLastFree), TANDEM_STATUS_UNKNOWN_ID);
  const auto permissions = records(Event::kPermission);
  ASSERT_EQ(permissions.size(), 1u);
  EXPECT_EQ(permissions[0].arguments[0], id);
  EXPECT_EQ(permissions[0].arguments[1], players(kFirstFree, kLastFree));
  client->session().stop();
  client->close();
  const auto gone = records(Event::kOwnerGone);
  ASSERT_EQ(gone.size(), 1u) << "once";
  EXPECT_EQ(gone[0].arguments[1], 2u) << "boards";
}

}  // namespace
}  // namespace tandem::engine::kxo
