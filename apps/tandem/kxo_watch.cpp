// SPDX-License-Identifier: Apache-2.0
/// tandem kxo watch: boards of the device, many on a screen.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <limits>
#include <optional>

#include "apps/options/options.hpp"
#include "apps/screen/terminal.hpp"
#include "apps/screen/watch_model.hpp"
#include "apps/tandem/games_device.hpp"
#include "apps/tandem/games_file.hpp"
#include "apps/tandem/kxo.hpp"
#include "apps/tandem/stop_signals.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::cli {
namespace {

using screen::WatchModel;
using wd::Code;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo watch                             agents of all kinds
  tandem kxo watch --boards 64 --o perfect --x mcts
  tandem kxo watch --game 8x8-5 --o mcts --x negamax --rate 2
  tandem kxo watch --plain --games 10 | grep 'O wins'

Keys: arrows, PgUp and PgDn choose a board; o and x change its agents; + and -
the speed; ^P stops the drawing and nothing else; ^Q ends and prints every
game's moves. docs/kxo-play.md
)";

constexpr milliseconds kFrame{50};           // between two pictures
constexpr milliseconds kLook{10};            // for moves and keys
constexpr std::chrono::seconds kSilence{1};  // after which the device is asked whether it lives
constexpr std::size_t kMostAtOnce = 256;     // moves of a board before others get a look

struct Settings {
  kxo::Rules rules = kxo::Rules::standard();
  int boards = 12, rate = 10;
  std::string o, x, save;
  std::uint64_t games = 0, seed = 1;
  std::uint32_t work = 0;
  bool plain = false;
};

/// The boards on the device, and what came of them.
class Watch {
 public:
  Watch(const Settings& settings, std::vector<WatchModel::Players> players)
      : settings_(settings),
        model_(settings.rules, players, playing_agents(settings.rules), settings.rate) {}

  std::optional<Failure> open();
  /// Takes the moves that are there; `told` is called with each: board, number of its game, cell.
  template <class Told>
  std::optional<Failure> take(Told told);
  std::optional<Failure> set_players(int board, const WatchModel::Players& players);
  /// Has all boards move with the model's rate.
  std::optional<Failure> set_rate();
  WatchModel& model() { return model_; }
  const kxo::Rules& rules() const { return settings_.rules; }
  bool enough() const { return settings_.games != 0 && model_.games() >= settings_.games; }

 private:
  struct Line {
    std::optional<wd::kxo::Board> board;
    std::size_t skipped = 0;  // moves to come that the model has already
  };
  Result<wd::kxo::Board, wd::Error> add(wd::kxo::Player o, wd::kxo::Player x, int board);
  std::optional<Failure> renew(int board);
  std::optional<Failure> check_device();
  Failure failed(std::string_view what, const wd::Error& error);

  const Settings& settings_;
  WatchModel model_;
  std::optional<wd::kxo::Device> device_;
  std::vector<Line> lines_;
  std::uint64_t renewed_ = 0;
  Clock::time_point heard_{};  // of the device
};

Failure Watch::failed(std::string_view what, const wd::Error& error) {
  const bool gone = error.code == Code::kDeviceLost && device_->queue().path() == wd::Path::kBroker;
  return {gone ? kBrokerUnreachable : kFailure,
          fmt::format("kxo watch: {}: {}{}", what, error.hint,
                      gone ? "; try: tandemd, or TANDEM=embedded" : "")};
}

Result<wd::kxo::Board, wd::Error> Watch::add(wd::kxo::Player o, wd::kxo::Player x, int board) {
  const kxo::Rules& rules = settings_.rules;
  return device_->add(
      {.o = o,
       .x = x,
       .width = static_cast<std::uint8_t>(rules.width()),
       .height = static_cast<std::uint8_t>(rules.height()),
       .goal = static_cast<std::uint8_t>(rules.goal()),
       .moves_per_second = static_cast<std::uint16_t>(model_.rate()),
       .work = settings_.work,
       .seed = settings_.seed + static_cast<std::uint64_t>(board) + (renewed_ << 32),
       .capacity = 128});
}

std::optional<Failure> Watch::open() {
  auto device = open_games_device();
  if (!device) return device.error();
  device_.emplace(std::move(*device));
  lines_.resize(static_cast<std::size_t>(model_.boards()));
  for (int i = 0; i < model_.boards(); ++i) {
    const auto& players = model_.players(i);
    auto board = add(*device_player(players.o), *device_player(players.x), i);
    if (!board) {
      Failure failure = failed(fmt::format("board {}", i + 1), board.error());
      if (failure.code == kFailure) failure.text += "; try: --boards with less";
      return failure;
    }
    lines_[static_cast<std::size_t>(i)].board.emplace(std::move(*board));
  }
  return std::nullopt;
}

template <class Told>
std::optional<Failure> Watch::take(Told told) {
  for (int i = 0; i < model_.boards(); ++i) {
    Line& line = lines_[static_cast<std::size_t>(i)];
    for (std::size_t n = 0; n < kMostAtOnce && !enough(); ++n) {
      const auto move = line.board->read();
      if (!move && move.error().code == Code::kBusy) break;
      if (!move && move.error().code == Code::kWrongTurn) {
        model_.set_stuck(i);  // the device leaves a player to us whose agent cannot play
        break;
      }
      if (!move) return failed("reading a move", move.error());
      heard_ = Clock::now();
      if (line.skipped > 0) {
        --line.skipped;
        continue;
      }
      model_.add_move(i, move->cell);
      told(i, *move);
    }
  }
  return check_device();
}

/// A broker that has died publishes no moves, and nothing else: it has to be asked.
std::optional<Failure> Watch::check_device() {
  const auto now = Clock::now();
  if (now - heard_ < kSilence) return std::nullopt;
  heard_ = now;
  const auto alive = lines_.front().board->board();
  return alive ? std::nullopt : std::optional(failed("the device", alive.error()));
}

std::optional<Failure> Watch::set_players(int board, const WatchModel::Players& players) {
  auto& its = *lines_[static_cast<std::size_t>(board)].board;
  if (const auto set = its.set_players(*device_player(players.o), *device_player(players.x));
      !set) {
    return failed("changing an agent", set.error());
  }
  model_.set_players(board, players);
  return std::nullopt;
}

/// A board's pace is set when it is made. So its game moves to another one: it is stopped, what it
/// published is taken, and the moves of its open game are made again.
std::optional<Failure> Watch::renew(int board) {
  Line& line = lines_[static_cast<std::size_t>(board)];
  if (const auto held = line.board->set_players(wd::kxo::Player::kUser, wd::kxo::Player::kUser);
      !held) {
    return failed("stopping a board", held.error());
  }
  for (auto move = line.board->read(); move; move = line.board->read()) {
    if (line.skipped > 0) {
      --line.skipped;
    } else {
      model_.add_move(board, move->cell);
    }
  }
  auto fresh = add(wd::kxo::Player::kUser, wd::kxo::Player::kUser, board);
  if (!fresh) return failed("another speed", fresh.error());
  for (const int cell : model_.open_moves(board)) {
    if (const auto made = fresh->play(cell); !made) {
      return failed("another speed", made.error());
    }
  }
  line.board.emplace(std::move(*fresh));
  line.skipped = model_.open_moves(board).size();
  const auto players = model_.players(board);
  return set_players(board, players);
}

std::optional<Failure> Watch::set_rate() {
  ++renewed_;
  for (int i = 0; i < model_.boards(); ++i) {
    if (auto failure = renew(i)) return failure;
  }
  return std::nullopt;
}

/// Moves per second, over about the last one.
class Speed {
 public:
  double of(std::uint64_t moves) {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - since_).count();
    if (seconds >= 1) {
      speed_ = static_cast<double>(moves - before_) / seconds;
      since_ = now;
      before_ = moves;
    }
    return speed_;
  }

 private:
  Clock::time_point since_ = Clock::now();
  std::uint64_t before_ = 0;
  double speed_ = 0;
};

std::optional<Failure> on_key(Watch& watch, int key, screen::Size size, bool& ended) {
  WatchModel& model = watch.model();
  switch (model.on_key(key, size)) {
    case WatchModel::Wish::kEnd:
      ended = true;
      return std::nullopt;
    case WatchModel::Wish::kPlayers:
      return watch.set_players(model.selected(), model.wanted_players());
    case WatchModel::Wish::kRate:
      return watch.set_rate();
    default:
      return std::nullopt;
  }
}

std::optional<Failure> show(Watch& watch, int& signal) {
  auto opened = screen::Terminal::open();
  if (!opened) return Failure{kFailure, "kxo watch: " + opened.error()};
  screen::Terminal& terminal = **opened;
  Speed speed;
  auto next_frame = Clock::now();
  screen::Size drawn{};
  bool ended = false;
  while (!ended && !watch.enough()) {
    if (auto failure = watch.take([](int, const wd::kxo::Move&) {})) return failure;
    bool draw = terminal.size() != drawn;
    if (Clock::now() >= next_frame) {
      draw = draw || !watch.model().paused();
      next_frame = Clock::now() + kFrame;
    }
    const int key = terminal.key(kLook);
    if ((signal = terminal.ended_by()) != 0) return std::nullopt;
    if (key != screen::kNoKey) {
      if (auto failure = on_key(watch, key, terminal.size(), ended)) return failure;
      draw = true;
    }
    if (!draw) continue;
    drawn = terminal.size();
    terminal.show(watch.model().draw(drawn, speed.of(watch.model().moves())));
  }
  return std::nullopt;
}

/// A line for each move, and one for each game that ends.
std::optional<Failure> print_lines(Watch& watch) {
  note_stop_signals({SIGPIPE});  // the games are saved first
  WatchModel& model = watch.model();
  std::vector<std::vector<int>> open(static_cast<std::size_t>(model.boards()));
  std::vector<int> games(open.size(), 1);
  const kxo::Rules& rules = watch.rules();
  const auto tell = [&](int board, const wd::kxo::Move& move) {
    const auto i = static_cast<std::size_t>(board);
    open[i].push_back(move.cell);
    fmt::print("board {} game {} move {}: {} {}\n", board + 1, games[i], open[i].size(),
               move.x ? 'X' : 'O', kxo::cell_name(rules, move.cell));
    if (!move.over) return;
    const auto& players = model.players(board);
    fmt::print("board {} game {}: {} - {}: {}: {}\n", board + 1, games[i]++, players.o, players.x,
               move.draw ? "draw"
               : move.x  ? "X wins"
                         : "O wins",
               screen::move_names(rules, open[i]));
    open[i].clear();
  };
  while (stop_signal() == 0 && !watch.enough()) {
    const std::uint64_t before = model.moves();
    if (auto failure = watch.take(tell)) return failure;
    if (std::fflush(stdout) != 0) return std::nullopt;  // main() says why
    const timespec pause{0, std::chrono::nanoseconds(kLook).count()};
    if (model.moves() == before) ::nanosleep(&pause, nullptr);
  }
  return std::nullopt;
}

/// Who plays whom: what was asked for, or a little of everything.
Result<std::vector<WatchModel::Players>, Failure> players_of(const Settings& settings) {
  const auto agents = playing_agents(settings.rules);
  for (const std::string& name : {settings.o, settings.x}) {
    if (name.empty() || std::find(agents.begin(), agents.end(), name) != agents.end()) continue;
    std::string names;
    for (const auto& agent : agents) {
      if (!names.empty()) names += ", ";
      names += agent;
    }
    return Unexpected{Failure{
        kUsage, fmt::format("kxo watch: no agent '{}' of the device plays {}; there are: {}", name,
                            kxo::game_name(settings.rules), names)}};
  }
  std::vector<WatchModel::Players> players;
  for (std::size_t i = 0; i < static_cast<std::size_t>(settings.boards); ++i) {
    const std::size_t n = agents.size();
    players.push_back({settings.o.empty() ? agents[i % n] : settings.o,
                       settings.x.empty() ? agents[(i / n + i + 1) % n] : settings.x});
  }
  return players;
}

int run(const Settings& settings) {
  if (auto failure = check_games_file("kxo watch", settings.save)) return report(*failure);
  auto players = players_of(settings);
  if (!players) return report(players.error());
  Watch watch(settings, std::move(*players));
  if (auto failure = watch.open()) return report(*failure);
  const bool on_screen =
      !settings.plain && ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0;
  int signal = 0;
  const auto failure = on_screen ? show(watch, signal) : print_lines(watch);
  if (!settings.save.empty()) {
    std::vector<screen::GameRecord> games;
    for (int i = 0; i < watch.model().boards(); ++i) {
      for (auto& game : watch.model().games_of(i)) games.push_back(std::move(game));
    }
    if (auto unsaved = add_games("kxo watch", settings.save, games)) return report(*unsaved);
  }
  if (!on_screen) signal = stop_signal();
  if (signal != 0) end_by(signal);
  if (failure) return report(*failure);
  if (on_screen) fmt::print("{}", watch.model().history());
  return kOk;
}

}  // namespace

void add_kxo_watch(const Command& kxo) {
  auto settings = std::make_shared<Settings>();
  const Command command = kxo.subcommand("watch", "Watch boards of the device, many at once");
  command.option("--boards", settings->boards, "how many")
      .text("N [12]")
      .check(whole_number(1, 1024));
  command.option("--o", settings->o, "who plays O on all boards").text("AGENT [all kinds]");
  command.option("--x", settings->x, "who plays X on all boards").text("AGENT [all kinds]");
  add_game_option(command, settings->rules);
  command.option("--rate", settings->rate, "moves per second of each board")
      .text("N [10]")
      .check(whole_number(1, 1000));
  command.option("--work", settings->work, "nodes or iterations of a move")
      .text("N")
      .check(whole_number(0, std::numeric_limits<std::uint32_t>::max()));
  command.option("--seed", settings->seed, "of the agents").text("S [1]").check(whole_number());
  command.option("--games", settings->games, "end after so many, of all boards")
      .text("N")
      .check(whole_number());
  command.option("--save", settings->save, "add the games to this file at the end")
      .text("FILE")
      .check(not_empty());
  command.flag("--plain", settings->plain, "no screen: a line for each move and game");
  command.footer(kExamples);
  command.action([settings] { return run(*settings); });
}

}  // namespace tandem::cli
