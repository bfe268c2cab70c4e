// SPDX-License-Identifier: Apache-2.0
/// tandem kxo solve: perfect play of a game, and of a position.
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "apps/options/options.hpp"
#include "apps/tandem/kxo.hpp"
#include "tandem/kxo/notation.hpp"
#include "tandem/kxo/solution.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo solve                       4x4-3: O wins in 5 plies
  tandem kxo solve b2 c3 --game 4x4-4    after these moves
  tandem kxo solve 'o../.x./...' --game 3x3-3

Each free cell shows what taking it is worth to who moves: w5 wins in 5 plies,
that move being the first; l4 loses in 4; d is a draw. Boards have at most 16
cells. JSON: {"schema": 1, ...}, "moves" by cell.
)";

using Kind = kxo::Value::Kind;

struct Settings {
  std::vector<std::string> position;
  kxo::Rules rules = kxo::Rules::standard();
  bool as_json = false;
};

/// What solving took.
struct Cost {
  double seconds = 0;
  double peak_bytes = 0;  // of the process
};

const char* name_of(kxo::Player player) { return player == kxo::Player::kO ? "O" : "X"; }

const char* name_of(Kind kind) {
  return kind == Kind::kWin ? "win" : kind == Kind::kLoss ? "loss" : "draw";
}

/// "O wins in 5 plies", of a game that is open.
std::string sentence(const kxo::Value& value, kxo::Player mover) {
  if (value.kind == Kind::kDraw) return "draw";
  const kxo::Player winner = value.kind == Kind::kWin ? mover : opponent(mover);
  return fmt::format("{} wins in {} {}", name_of(winner), value.plies,
                     value.plies == 1 ? "ply" : "plies");
}

/// How a game ended; empty while it is open.
std::string ending(kxo::Outcome outcome) {
  switch (outcome) {
    case kxo::Outcome::kO:
      return "O has won";
    case kxo::Outcome::kX:
      return "X has won";
    case kxo::Outcome::kDraw:
      return "drawn: the board is full";
    default:
      return "";
  }
}

void print_board(const kxo::Solution& solution, const kxo::Position& position) {
  const kxo::Rules& rules = solution.rules();
  const bool open = rules.outcome(position) == kxo::Outcome::kOpen;
  const kxo::Cells best = solution.best(position);
  for (int row = -1; row < rules.height(); ++row) {
    std::string line = row < 0 ? "   " : fmt::format("{:>3}", row + 1);
    for (int column = 0; column < rules.width(); ++column) {
      const int cell = row * rules.width() + column;
      std::string text = ".";
      if (row < 0) {
        text = kxo::cell_name(rules, column);
        text.pop_back();  // the row's 1
      } else if ((position.taken() & kxo::cell_bit(cell)) != 0) {
        text = (position.o & kxo::cell_bit(cell)) != 0 ? "O" : "X";
      } else if (open) {
        const kxo::Value value = solution.value_of_move(position, cell);
        text = value.kind == Kind::kDraw ? "d"
                                         : fmt::format("{:.1}{}", name_of(value.kind), value.plies);
      }
      const bool stands_out = row >= 0 && (best & kxo::cell_bit(cell)) != 0;
      line += std::string(5 - std::min<std::size_t>(4, text.size()), ' ') +
              (stands_out ? bold(text, STDOUT_FILENO) : text);
    }
    fmt::print("{}\n", line);
  }
}

void print_text(const kxo::Solution& solution, const kxo::Position& position, const Cost& cost) {
  const kxo::Rules& rules = solution.rules();
  fmt::print("{}: {}\n", kxo::game_name(rules), sentence(solution.value({}), kxo::Player::kO));
  fmt::print("{} positions: {} won, {} drawn, {} lost for who moves\n", solution.positions(),
             solution.positions(Kind::kWin), solution.positions(Kind::kDraw),
             solution.positions(Kind::kLoss));
  fmt::print("{:.2f} s, {:.1f} MB; the process had {:.1f} MB at most\n\n", cost.seconds,
             static_cast<double>(solution.bytes()) / 1e6, cost.peak_bytes / 1e6);
  const std::string end = ending(rules.outcome(position));
  const kxo::Player mover = position.to_move();
  if (!end.empty()) {
    fmt::print("This game is over: {}\n\n", end);
  } else if (position.plies() == 0) {
    fmt::print("Openings:\n\n");
  } else {
    fmt::print("{} to move: {}\n\n", name_of(mover), sentence(solution.value(position), mover));
  }
  print_board(solution, position);
  const kxo::Cells best = solution.best(position);
  if (best != 0) fmt::print("\nbest: {}\n", kxo::cell_names(rules, best));
}

nlohmann::ordered_json to_json(const kxo::Value& value) {
  return {{"kind", name_of(value.kind)}, {"plies", value.plies}};
}

void print_json(const kxo::Solution& solution, const kxo::Position& position, const Cost& cost) {
  const kxo::Rules& rules = solution.rules();
  nlohmann::ordered_json json;
  json["schema"] = 1;
  json["game"] = kxo::game_name(rules);
  json["value"] = to_json(solution.value({}));
  json["positions"] = {{"all", solution.positions()},
                       {"won", solution.positions(Kind::kWin)},
                       {"drawn", solution.positions(Kind::kDraw)},
                       {"lost", solution.positions(Kind::kLoss)}};
  json["seconds"] = cost.seconds;
  json["table_bytes"] = solution.bytes();
  json["peak_bytes"] = cost.peak_bytes;
  auto& here = json["position"];
  here["board"] = kxo::position_name(rules, position);
  const std::string end = ending(rules.outcome(position));
  here["over"] = !end.empty();
  here["to_move"] = name_of(position.to_move());
  here["value"] = to_json(solution.value(position));
  here["moves"] = nlohmann::ordered_json::object();
  here["best"] = nlohmann::ordered_json::array();
  for (int cell = 0; end.empty() && cell < rules.cells(); ++cell) {
    if ((rules.free(position) & kxo::cell_bit(cell)) == 0) continue;
    const std::string name = kxo::cell_name(rules, cell);
    here["moves"][name] = to_json(solution.value_of_move(position, cell));
    if ((solution.best(position) & kxo::cell_bit(cell)) != 0) here["best"].push_back(name);
  }
  fmt::print("{}\n", json.dump(2));
}

int run(const Settings& settings) {
  const kxo::Rules& rules = settings.rules;
  const auto position =
      kxo::parse_position(rules, fmt::format("{}", fmt::join(settings.position, " ")));
  if (!position) {
    return report(
        {kUsage, fmt::format("kxo solve: {}; try: tandem kxo solve --help", position.error())});
  }
  const auto start = std::chrono::steady_clock::now();
  const auto solution = kxo::Solution::of(rules);
  if (!solution) {
    return report({kUsage, fmt::format("kxo solve: {} has more than {} cells, which is not solved; "
                                       "try: --game 4x4-4",
                                       kxo::game_name(rules), kxo::Solution::kMostCells)});
  }
  Cost cost;
  cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  cost.peak_bytes = static_cast<double>(usage.ru_maxrss) * 1024;
  settings.as_json ? print_json(*solution, *position, cost)
                   : print_text(*solution, *position, cost);
  return kOk;
}

}  // namespace

void add_kxo_solve(const Command& kxo) {
  auto settings = std::make_shared<Settings>();
  const Command command = kxo.subcommand("solve", "Perfect play of a game, or of a position");
  command.option("POSITION", settings->position, "moves (b2 c3), or rows (o../.x./...)");
  add_game_option(command, settings->rules);
  command.flag("--json", settings->as_json, "as JSON");
  command.footer(kExamples);
  command.action([settings] { return run(*settings); });
}

}  // namespace tandem::cli
