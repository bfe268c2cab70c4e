// SPDX-License-Identifier: Apache-2.0
/// Games along every path: {inline, embedded, broker}.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "tandem/wd/kxo.hpp"

namespace tandem::paths {
namespace {

using wd::Code;
using wd::kxo::Board;
using wd::kxo::Device;
using wd::kxo::Player;

class KxoPath : public testing::TestWithParam<wd::Path> {
 protected:
  void SetUp() override {
    wd::Options options;
    options.path = GetParam();
    auto opened = Device::open(options);
    ASSERT_TRUE(opened) << opened.error().hint;
    device.emplace(std::move(*opened));
  }
  Board add(const wd::kxo::Setup& setup) {
    auto board = device->add(setup);
    EXPECT_TRUE(board) << board.error().hint;
    return std::move(board.value());
  }

  std::optional<Device> device;
};

std::string name_of(const testing::TestParamInfo<wd::Path>& info) {
  static constexpr const char* kNames[] = {"Auto", "Broker", "Embedded", "Inline"};
  return kNames[static_cast<int>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(All, KxoPath,
                         testing::Values(wd::Path::kInline, wd::Path::kEmbedded, wd::Path::kBroker),
                         name_of);

TEST_P(KxoPath, TheDeviceIsThere) {
  std::vector<wd_device> devices(8);
  const int count = wd_list_devices(static_cast<std::uint32_t>(GetParam()), devices.data(), 8);
  ASSERT_GT(count, 0);
  bool found = false;
  for (int i = 0; i < count; ++i) {
    found |= std::string(devices[static_cast<std::size_t>(i)].name) == "kxo";
  }
  EXPECT_TRUE(found);
}

TEST_P(KxoPath, TwoAgentsPlayGameAfterGameAndNoMoveIsMissing) {
  Board board = add({.o = Player::kRandom, .x = Player::kRandom, .seed = 3});
  std::uint32_t games = 0;
  int stones = 0;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const auto move = board.wait();
    ASSERT_TRUE(move) << move.error().hint;
    EXPECT_EQ(move->number, i);
    EXPECT_EQ(move->x, stones % 2 == 1);
    ++stones;
    if (!move->over) continue;
    ++games;
    stones = 0;
  }
  EXPECT_GE(games, 1000u / 16);
  const auto now = board.skip_to_now();
  ASSERT_TRUE(now);
  const auto next = board.wait();
  ASSERT_TRUE(next);
  EXPECT_GE(next->number, now->published);
}

TEST_P(KxoPath, TheClientPlaysAgainstAnAgent) {
  Board board = add({.o = Player::kRandom, .x = Player::kUser});
  for (int plies = 0, cell = 0;; cell = (cell + 1) % 16) {
    auto move = board.wait();
    for (; move; move = board.wait()) {
      if (++plies > 4 && move->over) return;
      if (move->over) plies = 0;
    }
    ASSERT_EQ(move.error().code, Code::kWrongTurn) << move.error().hint;
    const auto played = board.play(cell);
    EXPECT_TRUE(played || played.error().code == Code::kIllegalCell);
  }
}

TEST_P(KxoPath, RefusalsHaveCodes) {
  Board board = add({});
  EXPECT_EQ(board.read().error().code, Code::kWrongTurn);
  EXPECT_EQ(board.play(16).error().code, Code::kIllegalCell);
  EXPECT_EQ(board.play(-1).error().code, Code::kIllegalCell);
  ASSERT_TRUE(board.play(3));
  EXPECT_EQ(board.play(3).error().code, Code::kIllegalCell);
  EXPECT_EQ(board.set_players(static_cast<Player>(200), Player::kUser).error().code,
            Code::kUnsupported);
  EXPECT_EQ(device->add({.width = 9, .height = 9, .goal = 5}).error().code, Code::kInvalid);
  EXPECT_EQ(device->add({.capacity = 3}).error().code, Code::kInvalid);
  ASSERT_TRUE(board.set_players(Player::kUser, Player::kRandom));
  const auto mine = board.wait();
  ASSERT_TRUE(mine);
  EXPECT_EQ(mine->cell, 3);
  EXPECT_TRUE(board.wait());
  board.release();
  EXPECT_EQ(board.read().error().code, Code::kDeviceLost);
}

TEST_P(KxoPath, ManyBoardsAtOnce) {
  std::vector<Board> boards;
  for (std::uint64_t i = 0; i < 500; ++i) {
    boards.push_back(add({.o = Player::kRandom, .x = Player::kRandom, .seed = i}));
  }
  for (int round = 0; round < 20; ++round) {
    for (Board& board : boards) ASSERT_TRUE(board.wait());
  }
}

TEST_P(KxoPath, BoardsComeAndGo) {
  for (int i = 0; i < 2000; ++i) {
    Board board = add({.o = Player::kRandom, .x = Player::kUser});
  }
  EXPECT_TRUE(add({.o = Player::kRandom}).wait());
}

TEST_P(KxoPath, AReaderSleepsUntilItsPacedMoveComes) {
  Board board = add({.o = Player::kRandom, .x = Player::kRandom, .moves_per_second = 50});
  ASSERT_TRUE(board.wait());
  // Who was kept from the CPU finds the moves of that time first.
  auto read = board.read();
  while (read) read = board.read();
  EXPECT_EQ(read.error().code, Code::kBusy);
  const auto wait_shortly = [&] {
    return board.wait(std::chrono::steady_clock::now() + std::chrono::microseconds(1));
  };
  auto waited = wait_shortly();
  while (waited) waited = wait_shortly();
  EXPECT_EQ(waited.error().code, Code::kDeadline);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(board.wait());
}

// In the original another thread had no file of its own, and followed a null pointer.
TEST_P(KxoPath, AnotherThreadGoesOnWithABoardAndOpensItsOwn) {
  Board board = add({.o = Player::kUser, .x = Player::kRandom});
  std::thread([&] {
    ASSERT_TRUE(board.play(5));
    ASSERT_TRUE(board.wait());
    wd::Options options;
    options.path = GetParam();
    auto mine = Device::open(options);
    ASSERT_TRUE(mine);
    auto own = mine->add({.o = Player::kRandom, .x = Player::kUser});
    ASSERT_TRUE(own);
    EXPECT_TRUE(own->wait());
  }).join();
  EXPECT_TRUE(board.wait());
  EXPECT_EQ(board.read().error().code, Code::kWrongTurn);
}

#if !defined(__SANITIZE_THREAD__)
// The original followed a null pointer.
TEST_P(KxoPath, AForkedChildHasNoneOfTheBoardsAndTheParentKeepsThem) {
  Board board = add({.o = Player::kUser, .x = Player::kRandom});
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    if (board.read().error().code != Code::kDeviceLost) ::_exit(1);
    if (board.play(0).error().code != Code::kDeviceLost) ::_exit(2);
    if (device->add({}).error().code != Code::kDeviceLost) ::_exit(3);
    wd::Options options;
    options.path = GetParam();
    auto mine = Device::open(options);
    if (!mine) ::_exit(4);
    auto own = mine->add({.o = Player::kRandom, .x = Player::kUser});
    if (!own || !own->wait()) ::_exit(5);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), 0);
  ASSERT_TRUE(board.play(0));
  EXPECT_TRUE(board.wait());
  EXPECT_TRUE(board.wait());
}
#endif

}  // namespace
}  // namespace tandem::paths
