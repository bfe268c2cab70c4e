// SPDX-License-Identifier: Apache-2.0
/// Processes that share the broker's games: they open boards, change who plays, stall, fork and die
/// at random. Each checks every move of its boards; a board of the checker's own plays on all the
/// while.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <optional>
#include <random>
#include <string>
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
      static const kxo::Rules rules = kxo::Rules::standard();
      const kxo::Outcome outcome = rules.outcome(position_);
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
  kxo::Position position_;
  std::uint32_t next_ = 0;
};

/// Ten thousand boards at once, in so many processes.
constexpr std::size_t kAtOnce = 8;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
constexpr std::size_t kBoards = 10'000 / kAtOnce;
constexpr int kSteps = 1500;
#else  // which make each operation ten times dearer
constexpr std::size_t kBoards = 40;
constexpr int kSteps = 300;
#endif

/// What a process does. Returns: 0, or what was not right.
int live(std::uint32_t seed, int generations) {
  std::mt19937 random(seed);
  const auto below = [&](unsigned n) { return static_cast<int>(random() % n); };
  const auto player = [&] { return below(3) == 0 ? Player::kUser : Player::kRandom; };
  auto device = Device::open();
  if (!device) return 1;
  std::vector<Followed> boards;
  std::vector<pid_t> children;
  for (int i = 0; i < kSteps; ++i) {
    while (boards.size() < kBoards) {
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
        if (generations == 0 || below(kSteps / 8) != 0) break;
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

std::size_t resident_pages(pid_t process) {
  std::size_t size = 0, resident = 0;
  std::ifstream("/proc/" + std::to_string(process) + "/statm") >> size >> resident;
  return resident;
}

/// How often, and for how long at most; the soak test sets both.
unsigned rounds() {
  const char* const text = std::getenv("TANDEM_KXO_ROUNDS");
  return text == nullptr ? 200 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}
std::chrono::steady_clock::time_point deadline() {
  const char* const text = std::getenv("TANDEM_SOAK_SECONDS");
  const auto seconds = text == nullptr ? 3600 : std::strtol(text, nullptr, 10);
  return std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
}

/// What a child of a fork does with the device. Returns: 0, or what was not right.
int open_and_play(Board& parents) {
  ::alarm(200);
  if (parents.read().error().code != Code::kDeviceLost) return 1;
  auto device = Device::open();
  if (!device) return 2;
  auto board = device->add({.o = Player::kRandom, .x = Player::kUser});
  return board && board->wait() ? 0 : 3;
}

// Children end without giving anything back. The parent's board plays on, and its memory and the
// broker's stay what they were after the first rounds.
TEST(KxoChaos, ForkedChildrenThatComeAndGoLeaveNothingBehind) {
  const auto broker = broker::BrokerProcess::start({}).value();
  auto device = Device::open().value();
  Followed own(device.add({.o = Player::kRandom, .x = Player::kRandom}).value());
  const auto pages = [&] {
    return std::array{resident_pages(broker->pid()), resident_pages(::getpid())};
  };
  std::deque<pid_t> running;
  const auto reap = [&] {
    int status = -1;
    ASSERT_EQ(::waitpid(running.front(), &status, 0), running.front());
    ASSERT_EQ(status, 0);
    running.pop_front();
  };
  std::array<std::size_t, 2> before{};
  const auto end = deadline();
  const unsigned warm = std::min(rounds() / 10, 1000U);
  unsigned round = 0;
  for (; round < rounds() && std::chrono::steady_clock::now() < end; ++round) {
    if (round == warm) before = pages();
    const pid_t child = ::fork();
    if (child == 0) ::_exit(open_and_play(own.board()));
    running.push_back(child);
    if (running.size() == kAtOnce) {  // one alone is mostly waiting, where the CPUs are busy
      ASSERT_NO_FATAL_FAILURE(reap()) << "round " << round;
    }
    ASSERT_TRUE(own.follow(10));
  }
  while (!running.empty()) ASSERT_NO_FATAL_FAILURE(reap());
  const auto after = pages();
  std::printf("%u rounds; pages of the broker: %zu, then %zu; of its client: %zu, then %zu\n",
              round, before[0], after[0], before[1], after[1]);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  if (round <= warm) return;
  // 8 MiB, however many rounds there were: what ended within 10 s (the numbers of its pages are not
  // used again before), and threads of the broker that were not needed in the first rounds.
  constexpr std::size_t kSlack = 2048;
  EXPECT_LE(after[0], before[0] + kSlack);
  EXPECT_LE(after[1], before[1] + kSlack);
#endif
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

  constexpr int kProcesses = 40;
  std::size_t before = 0;
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
      ::alarm(900);
      ::_exit(live(childs, 1));
    }
    running.emplace_back(child, false);
    if (i % 3 == 0) {
      auto& victim = running[random() % running.size()];
      victim.second = ::kill(victim.first, SIGKILL) == 0;
    }
    EXPECT_TRUE(own.follow(200));
    if (running.size() >= kAtOnce) reap();
    if (i == kProcesses / 2) before = resident_pages(broker->pid());
  }
  while (!running.empty()) reap();
  for (const std::uint32_t goal = own.moves() + 200; own.moves() < goal;) {
    ASSERT_TRUE(own.follow(50));
  }
  const std::size_t after = resident_pages(broker->pid());
  std::printf("pages of the broker: %zu, then %zu\n", before, after);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // 8 MiB, a third of the boards that came since.
  EXPECT_LE(after, before + 2048);
#endif
  EXPECT_TRUE(broker->running());
}

}  // namespace
}  // namespace tandem
