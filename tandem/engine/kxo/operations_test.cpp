// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/kxo/test_bench.hpp"

namespace tandem::engine::kxo {
namespace {

/// Without threads: agents move in RESUME, so that a test sees each step.
class Operations : public testing::Test {
 protected:
  static Options without_threads() {
    Options options;
    options.threads = 0;
    return options;
  }
  /// Lets agents move until they wait for something.
  tandem_status resume(std::uint64_t id) {
    for (;;) {
      const std::uint32_t before = client.board(id).published;
      const tandem_status status = client.run(TANDEM_OP_KXO_RESUME, id).status;
      if (client.board(id).published == before) return status;
    }
  }

  TestDevice device{without_threads()};
  TestClient client{device};
};

TEST_F(Operations, AGameOfTheClientWithItself) {
  const auto wanted = client.setup(TANDEM_KXO_USER, TANDEM_KXO_USER);
  const std::uint64_t id = client.add(wanted);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_USERS_TURN);
  for (const std::uint32_t cell : {5u, 0u, 6u, 1u, 7u}) {
    EXPECT_EQ(client.write(id, cell), TANDEM_STATUS_OK);
  }
  ASSERT_EQ(client.published(wanted), 5u);
  Referee referee;
  for (std::uint32_t i = 0; i < 5; ++i) EXPECT_TRUE(referee.check(i, client.move(wanted, i)));
  const tandem_kxo_board board = client.board(id);
  EXPECT_EQ(board.o, 0b1110'0000u);
  EXPECT_EQ(board.x, 0b11u);
  EXPECT_EQ(board.over, 1);
  EXPECT_EQ(board.games, 1u);
}

// The original let the turn go on before it looked for a row, and so named the loser.
TEST_F(Operations, TheWinningMoveIsItsPlayersAndTheNextGameBeginsWithO) {
  const auto wanted = client.setup(TANDEM_KXO_USER, kFirstFree);
  const std::uint64_t id = client.add(wanted);
  for (const std::uint32_t cell : {15u, 11u}) {
    ASSERT_EQ(client.write(id, cell), TANDEM_STATUS_OK);
    ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
  }
  ASSERT_EQ(client.write(id, 7), TANDEM_STATUS_OK);
  EXPECT_EQ(client.move(wanted, 4) & 0xFF, 7u | TANDEM_KXO_MOVE_OVER);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_USERS_TURN);
  EXPECT_EQ(client.write(id, 7), TANDEM_STATUS_OK);
  EXPECT_EQ(client.move(wanted, 5) & 0xFF, 7u);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_AGENTS_TURN);
}

TEST_F(Operations, WritesOutOfTurnAndOnIllegalCellsChangeNothing) {
  const auto wanted = client.setup(kFirstFree, TANDEM_KXO_USER);
  const std::uint64_t id = client.add(wanted);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_AGENTS_TURN);
  EXPECT_EQ(client.write(id, 3), TANDEM_STATUS_WRONG_TURN);
  ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_USERS_TURN);
  for (const std::uint32_t cell : {0u, 16u, 17u, 64u, 65u, 256u, 0x8000'0000u, 0xFFFF'FFFFu}) {
    EXPECT_EQ(client.write(id, cell), TANDEM_STATUS_ILLEGAL_CELL) << cell;
  }
  EXPECT_EQ(client.published(wanted), 1u);
  EXPECT_EQ(client.write(id, 15), TANDEM_STATUS_OK);
  EXPECT_EQ(client.write(id, 14), TANDEM_STATUS_WRONG_TURN);
}

// The original called through a table with an index that anybody could send.
TEST_F(Operations, NoNumberThatIsNotAnAgentsIsTaken) {
  const std::uint64_t id = client.add(client.setup(TANDEM_KXO_USER, TANDEM_KXO_USER));
  const auto sane = [this](unsigned player) {
    return player == TANDEM_KXO_USER ||
           (player < 256 && device.agents->knows(static_cast<std::uint8_t>(player)));
  };
  for (unsigned player = 0; player < 256; ++player) {
    const auto expected = sane(player) ? TANDEM_STATUS_OK : TANDEM_STATUS_UNKNOWN_AGENT;
    const auto number = static_cast<std::uint8_t>(player);
    for (const auto& wanted : {client.setup(number, 0), client.setup(0, number)}) {
      const auto made = client.get_id(wanted);
      EXPECT_EQ(made.status, expected) << player;
      if (made.status == TANDEM_STATUS_OK) (void)client.release(made.result);
    }
    EXPECT_EQ(client.set_players(id, player, 0), expected) << player;
    EXPECT_EQ(client.set_players(id, 0, player), expected) << player;
  }
  for (const std::uint32_t player : {0x100u, 0x1000u, 0x1'0000u, 0xFF'FFFFu}) {
    EXPECT_EQ(client.set_players(id, 0, player), TANDEM_STATUS_UNKNOWN_AGENT) << player;
  }
}

// The original's ids were off by one.
TEST_F(Operations, IdsThatNobodyHasAreUnknown) {
  const std::uint64_t id = client.add(client.setup(0, 0));
  const std::uint64_t gone = client.add(client.setup(0, 0));
  EXPECT_EQ(client.release(gone), TANDEM_STATUS_OK);
  for (const std::uint64_t other :
       {std::uint64_t{0}, id - 1, gone, gone + 1, id | std::uint64_t{1} << 32, ~std::uint64_t{0}}) {
    for (const std::uint16_t opcode : {TANDEM_OP_KXO_SET_PERMISSION, TANDEM_OP_KXO_RELEASE_ID,
                                       TANDEM_OP_KXO_WRITE, TANDEM_OP_KXO_RESUME}) {
      EXPECT_EQ(client.run(opcode, other).status, TANDEM_STATUS_UNKNOWN_ID) << other;
    }
  }
  EXPECT_EQ(client.write(id, 0), TANDEM_STATUS_OK);
}

TEST_F(Operations, AUserIsUnknownToEveryOtherQueue) {
  TestClient other(device, 1, 100);
  const auto wanted = client.setup(0, 0);
  const std::uint64_t id = client.add(wanted);
  ASSERT_EQ(other.write(id, 0), TANDEM_STATUS_UNKNOWN_ID);
  ASSERT_EQ(other.set_players(id, 0, 0), TANDEM_STATUS_UNKNOWN_ID);
  ASSERT_EQ(other.run(TANDEM_OP_KXO_RESUME, id).status, TANDEM_STATUS_UNKNOWN_ID);
  ASSERT_EQ(other.release(id), TANDEM_STATUS_UNKNOWN_ID);
  tandem_descriptor board{};
  board.opcode = TANDEM_OP_KXO_BOARD;
  board.operand = id;
  board.dst = TestSpace::kRam;
  board.dst_len = sizeof(tandem_kxo_board);
  ASSERT_EQ(other.run(board).status, TANDEM_STATUS_UNKNOWN_ID);
  EXPECT_EQ(client.published(wanted), 0u);
  EXPECT_EQ(client.write(id, 0), TANDEM_STATUS_OK);
}

TEST_F(Operations, FieldsThatAnOperationDoesNotTakeAreZero) {
  const std::uint64_t id = client.add(client.setup(0, 0));
  tandem_descriptor good{};
  good.opcode = TANDEM_OP_KXO_RESUME;
  good.operand = id;
  ASSERT_EQ(client.run(good).status, TANDEM_STATUS_OK);
  for (const auto change :
       {+[](tandem_descriptor& d) { d.flags = 1; }, +[](tandem_descriptor& d) { d.param = 1; },
        +[](tandem_descriptor& d) { d.src_len = 1; }, +[](tandem_descriptor& d) { d.dst_len = 1; },
        +[](tandem_descriptor& d) { d.reserved[0] = 1; },
        +[](tandem_descriptor& d) { d.reserved[1] = 1; }}) {
    tandem_descriptor bad = good;
    change(bad);
    EXPECT_EQ(client.run(bad).status, TANDEM_STATUS_BAD_DESCRIPTOR);
  }
  tandem_descriptor unknown = good;
  unknown.opcode = 0x46;
  EXPECT_EQ(client.run(unknown).status, TANDEM_STATUS_UNKNOWN_OPCODE);
  // The original span for ever on a length of 0.
  for (const std::uint32_t length : {0u, 63u, 65u, 0xFFFF'FFFFu}) {
    tandem_descriptor bad{};
    bad.opcode = TANDEM_OP_KXO_GET_ID;
    bad.src = TestSpace::kRam;
    bad.src_len = length;
    EXPECT_EQ(client.run(bad).status, TANDEM_STATUS_BAD_DESCRIPTOR) << length;
    bad = good;
    bad.opcode = TANDEM_OP_KXO_BOARD;
    bad.dst = TestSpace::kRam;
    bad.dst_len = length;
    EXPECT_EQ(client.run(bad).status, TANDEM_STATUS_BAD_DESCRIPTOR) << length;
  }
}

TEST_F(Operations, SetupsThatMeanNothingAreRefused) {
  const auto refused = [this](tandem_status status, auto change) {
    tandem_kxo_setup wanted = client.setup(0, 0);
    change(wanted);
    EXPECT_EQ(client.get_id(wanted).status, status);
  };
  using S = tandem_kxo_setup;
  for (const std::uint32_t capacity : {0u, 1u, 3u, 131072u, 0xFFFF'FFFFu}) {
    refused(TANDEM_STATUS_BAD_DESCRIPTOR, [&](S& s) { s.capacity = capacity; });
  }
  refused(TANDEM_STATUS_BAD_DESCRIPTOR, [](S& s) { s.ring += 4; });
  refused(TANDEM_STATUS_BAD_DESCRIPTOR, [](S& s) { s.reserved0 = 1; });
  refused(TANDEM_STATUS_BAD_DESCRIPTOR, [](S& s) { s.reserved1 = 1; });
  refused(TANDEM_STATUS_BAD_DESCRIPTOR, [](S& s) { s.reserved[2] = 1; });
  refused(TANDEM_STATUS_BAD_DESCRIPTOR, [](S& s) { s.width = 4; });
  refused(TANDEM_STATUS_BAD_DESCRIPTOR, [](S& s) { s.width = s.height = 9, s.goal = 5; });
  refused(TANDEM_STATUS_BAD_DESCRIPTOR, [](S& s) { s.width = s.height = 3, s.goal = 4; });
  refused(TANDEM_STATUS_BAD_RANGE, [](S& s) { s.ring = TestSpace::kAperture; });
  refused(TANDEM_STATUS_BAD_RANGE, [](S& s) { s.ring = TestSpace::kReadOnly; });
  refused(TANDEM_STATUS_BAD_RANGE,
          [](S& s) { s.ring = TestSpace::kRam + TestSpace::kRamBytes - 64; });
  refused(TANDEM_STATUS_BAD_RANGE, [](S& s) { s.ring = ~std::uint64_t{63}; });
  refused(TANDEM_STATUS_BAD_RANGE, [](S& s) { s.ring = 0; });
  tandem_descriptor unreadable{};
  unreadable.opcode = TANDEM_OP_KXO_GET_ID;
  unreadable.src = TestSpace::kRam + TestSpace::kRamBytes - 32;
  unreadable.src_len = sizeof(S);
  EXPECT_EQ(client.run(unreadable).status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(device.device().live(), 0u);
}

TEST_F(Operations, BoardsOfUpTo64Cells) {
  auto wanted = client.setup(TANDEM_KXO_USER, kLastFree);
  wanted.width = wanted.height = 8;
  wanted.goal = 5;
  const std::uint64_t id = client.add(wanted);
  Referee referee(8, 8, 5);
  std::uint32_t number = 0;
  for (const std::uint32_t cell : {0u, 9u, 18u, 27u}) {
    ASSERT_EQ(client.write(id, cell), TANDEM_STATUS_OK);
    ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
  }
  ASSERT_EQ(client.write(id, 36), TANDEM_STATUS_OK);
  EXPECT_EQ(tandem_kxo_move_cell(client.move(wanted, 1)), 63u);
  for (; number < client.published(wanted); ++number) {
    ASSERT_TRUE(referee.check(number, client.move(wanted, number)));
  }
  EXPECT_EQ(number, 9u);
  EXPECT_EQ(client.move(wanted, 8) & TANDEM_KXO_MOVE_OVER, TANDEM_KXO_MOVE_OVER);
}

// The original dropped the newest move when its FIFO was full.
TEST_F(Operations, AFullRingStopsTheBoardAndLosesNothing) {
  auto wanted = client.setup(kFirstFree, kLastFree);
  wanted.capacity = 8;
  const std::uint64_t id = client.add(wanted);
  Referee referee;
  for (std::uint32_t taken = 0; taken < 80; taken += 4) {
    ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
    ASSERT_EQ(client.published(wanted), taken + 8);
    for (std::uint32_t i = taken; i < taken + 4; ++i) {
      ASSERT_TRUE(referee.check(i, client.move(wanted, i)));
    }
    EXPECT_TRUE(client.take(wanted, taken + 4));
  }
  ASSERT_EQ(client.set_players(id, TANDEM_KXO_USER, TANDEM_KXO_USER), TANDEM_STATUS_OK);
  ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
  std::uint32_t free = static_cast<std::uint32_t>(
      std::countr_one(client.board(id).over != 0 ? 0 : client.board(id).o | client.board(id).x));
  for (int room = 4; room > 0; --room) {
    ASSERT_EQ(client.write(id, free), TANDEM_STATUS_OK);
    const tandem_kxo_board board = client.board(id);
    free = board.over != 0 ? 0 : static_cast<std::uint32_t>(std::countr_one(board.o | board.x));
  }
  EXPECT_EQ(client.write(id, free), TANDEM_STATUS_WOULD_BLOCK);
}

TEST_F(Operations, AClientThatWritesNonsenseIntoItsRingStopsItsOwnBoard) {
  auto wanted = client.setup(kFirstFree, kLastFree);
  const std::uint64_t id = client.add(wanted);
  tandem_kxo_ring& ring = client.ring(wanted);
  ring.progress = ~std::uint64_t{0};
  ring.taken = 12345;
  ring.stalled = ring.event = ring.waiting = 0xFFFF'FFFF;
  EXPECT_EQ(resume(id), TANDEM_STATUS_OK);
  EXPECT_EQ(client.board(id).published, TestClient::kCapacity) << "the room that there was";
  EXPECT_EQ(resume(id), TANDEM_STATUS_OK);
  EXPECT_EQ(client.board(id).published, TestClient::kCapacity);
  ring.taken = 4;
  EXPECT_EQ(resume(id), TANDEM_STATUS_OK);
  EXPECT_EQ(client.published(wanted), TestClient::kCapacity + 4);
}

TEST_F(Operations, APermissionCountsFromTheNextMoveOn) {
  auto wanted = client.setup(kFirstFree, kFirstFree);
  wanted.capacity = 2;
  const std::uint64_t id = client.add(wanted);
  ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
  ASSERT_EQ(client.set_players(id, kLastFree, TANDEM_KXO_USER), TANDEM_STATUS_OK);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_AGENTS_TURN);
  (void)client.take(wanted, 2);
  ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
  EXPECT_EQ(client.move(wanted, 2) & 0xFF, 15u);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_USERS_TURN);
  EXPECT_EQ(client.write(id, 2), TANDEM_STATUS_OK);
}

TEST_F(Operations, AnAgentThatHasNoMoveLeavesItsPlayerToTheClient) {
  const auto wanted = client.setup(kBroken, kBroken);
  const std::uint64_t id = client.add(wanted);
  ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
  EXPECT_EQ(client.published(wanted), 0u);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_USERS_TURN);
  EXPECT_EQ(client.write(id, 8), TANDEM_STATUS_OK);
  ASSERT_EQ(resume(id), TANDEM_STATUS_OK);
  EXPECT_EQ(client.published(wanted), 1u);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_USERS_TURN);
  EXPECT_EQ(client.board(id).player_x, TANDEM_KXO_USER);
  EXPECT_EQ(client.write(id, 9), TANDEM_STATUS_OK);
}

TEST_F(Operations, APacedBoardSaysWhenItsNextMoveIsDue) {
  auto wanted = client.setup(kFirstFree, kLastFree);
  wanted.moves_per_second = 10;
  const std::uint64_t id = client.add(wanted);
  const auto first = client.run(TANDEM_OP_KXO_RESUME, id);
  EXPECT_EQ(client.published(wanted), 1u);
  EXPECT_GT(first.result, 0u);
  EXPECT_LE(first.result, 100'000'000u);
}

TEST_F(Operations, ReleaseSaysSoInTheRing) {
  const auto wanted = client.setup(0, 0);
  const std::uint64_t id = client.add(wanted);
  EXPECT_EQ(client.release(id), TANDEM_STATUS_OK);
  EXPECT_EQ(client.state(wanted), TANDEM_KXO_GONE);
  EXPECT_EQ(client.release(id), TANDEM_STATUS_UNKNOWN_ID);
}

}  // namespace
}  // namespace tandem::engine::kxo
