// SPDX-License-Identifier: Apache-2.0
/// tandem kxo play: a person against an agent.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <optional>
#include <random>

#include "apps/options/options.hpp"
#include "apps/screen/board_view.hpp"
#include "apps/screen/play_model.hpp"
#include "apps/screen/terminal.hpp"
#include "apps/screen/thinker.hpp"
#include "apps/tandem/games_device.hpp"
#include "apps/tandem/games_file.hpp"
#include "apps/tandem/kxo.hpp"
#include "apps/tandem/stop_signals.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::cli {
namespace {

using screen::PlayModel;
using screen::Thinker;
using std::chrono::milliseconds;

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo play                               4x4-3, you begin, against mcts
  tandem kxo play --game 8x8-5 --as x --against mcts:time=1s
  tandem kxo play --against 'external:command=./engine' --save games.txt
  printf 'b2\nc3\nquit\n' | tandem kxo play --plain

Keys: arrows and Enter, or b2 for column b, row 2; h hint, u undo, n new game,
t other opponent, ^Q end; upper case where the board has that column. Without a
terminal each line is a move or a word: help lists them. docs/kxo-play.md
)";
constexpr milliseconds kLook{50};  // for keys and answers

struct Settings {
  kxo::Rules rules = kxo::Rules::standard();
  std::string as = "o", against = "mcts", save;
  std::optional<std::uint64_t> seed;
  bool plain = false;
};

/// Who can be asked for by key: agents that need no more than their names.
std::vector<std::string> opponents(const kxo::Rules& rules) {
  const auto playing = playing_agents(rules);
  std::vector<std::string> names;
  for (const kxo::AgentKind& kind : kxo::agent_kinds()) {
    const std::string name(kind.name);
    const bool plays = device_player(name)
                           ? std::find(playing.begin(), playing.end(), name) != playing.end()
                           : name != "external";
    if (plays) names.push_back(name);
  }
  return names;
}

/// The games of a person, with what thinks in them.
class Session {
 public:
  /// `agent`: the opponent that the settings name.
  Session(const Settings& settings, std::unique_ptr<kxo::Agent> agent)
      : settings_(settings),
        agent_(std::move(agent)),
        model_({settings.rules, settings.as == "x" ? kxo::Player::kX : kxo::Player::kO,
                settings.against, opponents(settings.rules),
                [this](const std::string& name) { return try_agent(name); }}) {}

  PlayModel& model() { return model_; }
  bool thinking() const { return opponent_.busy(); }
  const std::vector<screen::GameRecord>& games() const { return games_; }

  /// Does what a key or a line asked for. Returns: whether it goes on.
  bool act(PlayModel::Wish wish);
  /// Has agents think where they have to, and takes their answers. Returns: whether anything
  /// changed. `wait`: until there is nothing to wait for, or a signal stops us.
  bool go_on(bool wait);
  /// Keeps the game as it is. Errors: of the file.
  std::optional<Failure> keep();
  /// Of a game that was kept when it ended.
  std::optional<Failure> failure() const { return failure_; }

 private:
  /// Makes the agent. Returns: what is wrong with it, or nothing.
  std::string try_agent(const std::string& name);
  void ask_opponent();
  void answered(const Thinker::Answer& answer);
  void hinted(const Thinker::Answer& answer);
  bool has_answers(bool wait);
  void stop_thinking() {
    opponent_.forget();
    hinter_.forget();
    failed_ = false;
  }

  const Settings& settings_;
  // Kept alive: what it learned, or solved, is shared by those of its kind.
  std::unique_ptr<kxo::Agent> agent_;
  PlayModel model_;
  Thinker opponent_, hinter_;
  kxo::Position hint_for_;    // that is thought of
  std::uint64_t number_ = 0;  // of the game
  bool failed_ = false;       // the agent cannot move; not asked again before something changes
  bool kept_ = false;         // this game, as it is
  std::vector<screen::GameRecord> games_;
  std::optional<Failure> failure_;
};

bool Session::act(PlayModel::Wish wish) {
  switch (wish) {
    case PlayModel::Wish::kHint: {
      const bool solved = model_.rules().cells() <= kxo::Solution::kMostCells;
      hint_for_ = model_.position();
      hinter_.ask({solved ? "perfect" : "mcts:time=1s", model_.rules(), hint_for_, {}, {}});
      model_.say("hint: thinking");
      return true;
    }
    case PlayModel::Wish::kNewGame:
      stop_thinking();
      failure_ = keep();
      ++number_;
      kept_ = false;
      model_.new_game();
      return !failure_;
    case PlayModel::Wish::kTakenBack:
      stop_thinking();
      kept_ = false;
      return true;
    case PlayModel::Wish::kAgent:
      stop_thinking();
      return true;
    case PlayModel::Wish::kQuit:
      return false;
    default:
      return true;
  }
}

std::string Session::try_agent(const std::string& name) {
  auto agent = make_agent("kxo play", name, settings_.rules);
  if (!agent) return agent.error().text;
  agent_ = std::move(*agent);
  return {};
}

void Session::ask_opponent() {
  opponent_.ask(
      {model_.agent(), model_.rules(), model_.position(), {*settings_.seed, number_}, {}});
}

void Session::answered(const Thinker::Answer& answer) {
  if (answer) {
    model_.agent_moves(*answer);
    return;
  }
  failed_ = true;
  model_.say(fmt::format("{}; {}: other opponent", answer.error(), model_.key_of('t')));
}

void Session::hinted(const Thinker::Answer& answer) {
  if (!answer) {
    model_.say("no hint: " + answer.error());
    return;
  }
  std::string why = "what mcts found in a second";
  if (const auto solution = kxo::Solution::shared(model_.rules())) {
    const kxo::Value value = (*solution)->value(model_.position());
    why = value.kind == kxo::Value::Kind::kDraw
              ? "a draw, both playing perfectly"
              : fmt::format("{} in {} plies, both playing perfectly",
                            value.kind == kxo::Value::Kind::kWin ? "wins" : "loses", value.plies);
  }
  model_.show_hint(*answer, why);
}

/// Takes the answers that are there, or those that there will be soon.
bool Session::has_answers(bool wait) {
  const auto patience = wait ? kLook : milliseconds(0);
  bool any = false;
  if (const auto answer = opponent_.busy() ? opponent_.wait_for(patience) : std::nullopt) {
    answered(*answer);
    any = true;
  }
  if (const auto answer = hinter_.busy() ? hinter_.wait_for(patience) : std::nullopt) {
    hinted(*answer);
    any = true;
  }
  return any;
}

bool Session::go_on(bool wait) {
  // What was asked about another position does not help any more.
  if (hinter_.busy() && model_.position() != hint_for_) hinter_.forget();
  bool changed = false;
  do {
    if (model_.agents_turn() && !opponent_.busy() && !failed_) {
      ask_opponent();
      changed = true;
    }
    if (has_answers(wait)) changed = true;
    if (model_.is_over() && !kept_) {
      if (auto failed = keep()) failure_ = failed;
    }
  } while (wait && stop_signal() == 0 &&
           (opponent_.busy() || hinter_.busy() || (model_.agents_turn() && !failed_)));
  return changed;
}

std::optional<Failure> Session::keep() {
  if (kept_ || model_.game().moves.empty()) return std::nullopt;
  kept_ = true;
  games_.push_back(model_.game());
  if (settings_.save.empty()) return std::nullopt;
  return add_games("kxo play", settings_.save, {model_.game()});
}

void show_plain(const PlayModel& model) {
  if (!model.message().empty()) fmt::print("{}\n", model.message());
  fmt::print("{}", screen::board_text(model.rules(), model.position(), model.last()));
  fmt::print("{}\n", model.status(false));
  std::fflush(stdout);
}

std::optional<Failure> play_lines(Session& session) {
  note_stop_signals({SIGPIPE});  // what waits for a line gets none then
  PlayModel& model = session.model();
  (void)session.go_on(true);
  show_plain(model);
  for (std::string line; std::getline(std::cin, line);) {
    const auto before = model.position();
    model.say("");
    if (!session.act(model.on_line(line))) break;
    (void)session.go_on(true);
    if (stop_signal() != 0) break;
    if (auto failure = session.failure()) return failure;
    if (model.position() == before && !model.message().empty()) {
      fmt::print("{}\n", model.message());
      std::fflush(stdout);
    } else if (!line.empty()) {
      show_plain(model);
    }
    if (std::ferror(stdout) != 0) break;
  }
  return session.keep();
}

std::optional<Failure> play_on_screen(Session& session, int& signal) {
  auto opened = screen::Terminal::open();
  if (!opened) return Failure{kFailure, "kxo play: " + opened.error()};
  screen::Terminal& terminal = **opened;
  PlayModel& model = session.model();
  screen::Size drawn{};
  for (bool draw = true;;) {
    if (session.go_on(false)) draw = true;
    if (auto failure = session.failure()) return failure;
    if (draw || terminal.size() != drawn) {
      drawn = terminal.size();
      terminal.show(model.draw(drawn, session.thinking()));
    }
    const int key = terminal.key(kLook);
    if ((signal = terminal.ended_by()) != 0) break;
    draw = key != screen::kNoKey;
    if (draw && !session.act(model.on_key(key))) break;
  }
  return session.keep();
}

int run(const Settings& given) {
  Settings settings = given;
  if (!settings.seed) settings.seed = std::random_device{}();
  if (auto failure = check_games_file("kxo play", settings.save)) return report(*failure);
  auto agent = make_agent("kxo play", settings.against, settings.rules);
  if (!agent) return report(agent.error());
  const bool on_screen =
      !settings.plain && ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0;
  Session session(settings, std::move(*agent));
  int signal = 0;
  const auto failure = on_screen ? play_on_screen(session, signal) : play_lines(session);
  if (!on_screen) signal = stop_signal();
  if (signal != 0) end_by(signal);
  if (failure) return report(*failure);
  if (!on_screen) return kOk;
  for (const screen::GameRecord& game : session.games()) {
    fmt::print("{} - {}: {}: {}\n", game.o, game.x, screen::outcome_name(game.outcome()),
               screen::move_names(game.rules, game.moves));
  }
  return kOk;
}

}  // namespace

void add_kxo_play(const Command& kxo) {
  auto settings = std::make_shared<Settings>();
  const Command command = kxo.subcommand("play", "Play against an agent");
  add_game_option(command, settings->rules);
  command.option("--as", settings->as, "your side; o begins")
      .text("o|x [o]")
      .check(one_of({"o", "x"}));
  command.option("--against", settings->against, "who plays the other side").text("AGENT [mcts]");
  command.option("--save", settings->save, "add your games to this file")
      .text("FILE")
      .check(not_empty());
  command.option("--seed", settings->seed, "of the agent").text("S").check(whole_number());
  command.flag("--plain", settings->plain, "no screen: lines in, boards out");
  command.footer(kExamples);
  command.action([settings] { return run(*settings); });
}

}  // namespace tandem::cli
