// SPDX-License-Identifier: Apache-2.0
/// Processes that share the broker's games: they open boards, change who plays, stall, fork and die
/// at random. Each checks every move of its boards; a board of the checker's own plays on all the
/// while.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <optional>
#include <random>
#include <vector>

#include "apps/broker_process/broker_process.hpp"
#include "tandem/kxo/rules.hpp"
#include "tandem/wd/kxo.hpp"

namespace tandem {
namespace {

using wd::Code;
using wd::kxo::Board;
using wd::kxo::Device;
using wd::kxo::Player;

/// A board and what its moves so far came to.
class Followed {
 public:
  explicit Followed(Board board) : board_(std::move(board)) {}
  Board& board() { return board_; }

  /// Takes at most `most` moves. Returns: false when one was not right.
  bool follow(int most) {
    for (; most > 0; --most) {
      const auto move = board_.read();
      if (!move) return move.error().code == Code::kBusy || move.error().code == Code::kWrongTurn;
      const bool x = position_.to_move() == kxo::Player::kX;
      if (move->number != next_++ || move->x != x || move->cell < 0 || move->cell >= 16 ||
          (position_.taken() & kxo::cell_bit(move->cell)) != 0) {
        return false;
      }
      position_ = position_.after(move->cell);
      const kxo::Outcome outcome = rules_.outcome(position_);
      if (move->over != (outcome != kxo::Outcome::kOpen) ||
          move->draw != (outcome == kxo::Outcome::kDraw)) {
        return false;
      }
      if (move->over) position_ = {};
    }
    return true;
  }
  std::uint32_t moves() const { return next_; }

 private:
  Board board_;
  kxo::Rules rules_ = kxo::Rules::standard();
  kxo::Position position_;
  std::uint32_t next_ = 0;
};

/// What a process does. Returns: 0, or what was not right.
int live(std::uint32_t seed, int generations) {
  std::mt19937 random(seed);
  const auto below = [&](unsigned n) { return static_cast<int>(random() % n); };
  const auto player = [&] { return below(3) == 0 ? Player::kUser : Player::kRandom; };
  auto device = Device::open();
  if (!device) return 1;
  std::vector<Followed> boards;
  std::vector<pid_t> children;
  for (int i = 0; i < 300; ++i) {
    if (boards.size() < 5) {
      auto made = device->add({.o = player(), .x = player(), .seed = random(), .capacity = 16});
      if (!made) return 2;
      boards.emplace_back(std::move(*made));
    }
    Followed& one = boards[random() % boards.size()];
    switch (below(12)) {
      case 0:
        if (!one.board().set_players(player(), player())) return 3;
        break;
      case 1: {
        const auto played = one.board().play(below(17));
        if (!played && played.error().code != Code::kWrongTurn &&
            played.error().code != Code::kIllegalCell && played.error().code != Code::kBusy) {
          return 4;
        }
        break;
      }
      case 2:
        if (&one != &boards.back()) one = std::move(boards.back());
        boards.pop_back();
        break;
      case 3:
        if (generations == 0 || below(40) != 0) break;
        if (const pid_t child = ::fork(); child == 0) {
          if (one.board().read().error().code != Code::kDeviceLost) ::_exit(5);
          ::_exit(live(seed + 1000, generations - 1));
        } else {
          children.push_back(child);
        }
        break;
      default:
        if (!one.follow(below(64))) return 6;
    }
  }
  for (const pid_t child : children) {
    int status = 0;
    if (::waitpid(child, &status, 0) != child || status != 0) return 7;
  }
  return 0;
}

TEST(KxoChaos, NoMoveIsLostOrDoubledWhateverOthersDo) {
  const char* const given = std::getenv("TANDEM_SEED");
  const auto seed = given != nullptr ? static_cast<std::uint32_t>(std::strtoul(given, nullptr, 10))
                                     : std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const auto broker = broker::BrokerProcess::start({}).value();
  auto device = Device::open().value();
  Followed own(device.add({.o = Player::kRandom, .x = Player::kRandom}).value());

  constexpr int kProcesses = 40, kAtOnce = 6;
  std::vector<std::pair<pid_t, bool>> running;  // and whether it was killed
  const auto reap = [&] {
    int status = 0;
    ASSERT_EQ(::waitpid(running.front().first, &status, 0), running.front().first);
    if (!running.front().second) {
      EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), 0);
    }
    running.erase(running.begin());
  };
  for (int i = 0; i < kProcesses; ++i) {
    const auto childs = static_cast<std::uint32_t>(random());
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(200);
      ::_exit(live(childs, 1));
    }
    running.emplace_back(child, false);
    if (i % 3 == 0) {
      auto& victim = running[random() % running.size()];
      victim.second = ::kill(victim.first, SIGKILL) == 0;
    }
    EXPECT_TRUE(own.follow(200));
    if (running.size() >= kAtOnce) reap();
  }
  while (!running.empty()) reap();
  for (const std::uint32_t goal = own.moves() + 200; own.moves() < goal;) {
    ASSERT_TRUE(own.follow(50));
  }
  EXPECT_TRUE(broker->running());
}

}  // namespace
}  // namespace tandem
