// SPDX-License-Identifier: Apache-2.0
/// tandem kxo replay: games that `tandem kxo play --save` kept.
#include <unistd.h>

#include "apps/options/options.hpp"
#include "apps/screen/board_view.hpp"
#include "apps/screen/replay_model.hpp"
#include "apps/screen/terminal.hpp"
#include "apps/tandem/games_file.hpp"
#include "apps/tandem/kxo.hpp"
#include "apps/tandem/stop_signals.hpp"
#include "tandem/kxo/notation.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  tandem kxo replay games.txt            arrows step through moves and games
  tandem kxo replay --plain games.txt    the board after each move
)";

struct Settings {
  std::string file;
  bool plain = false;
};

void print(const std::vector<screen::GameRecord>& games) {
  for (std::size_t i = 0; i < games.size(); ++i) {
    const screen::GameRecord& game = games[i];
    fmt::print("game {}: {}: {} - {}\n", i + 1, kxo::game_name(game.rules), game.o, game.x);
    for (std::size_t ply = 1; ply <= game.moves.size(); ++ply) {
      const int cell = game.moves[ply - 1];
      fmt::print("move {}: {} {}\n{}", ply, ply % 2 == 1 ? 'O' : 'X',
                 kxo::cell_name(game.rules, cell),
                 screen::board_text(game.rules, game.position(ply), cell));
    }
    fmt::print("{}\n", screen::outcome_name(game.outcome()));
  }
}

int run(const Settings& settings) {
  auto games = read_games("kxo replay", settings.file);
  if (!games) return report(games.error());
  if (games->empty()) {
    return report({kFailure, fmt::format("kxo replay: {}: there is no game in it; try: tandem kxo "
                                         "play --save {}",
                                         settings.file, settings.file)});
  }
  if (settings.plain || ::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) {
    print(*games);
    return kOk;
  }
  int signal = 0;
  {
    auto opened = screen::Terminal::open();
    if (!opened) return report({kFailure, "kxo replay: " + opened.error()});
    screen::Terminal& terminal = **opened;
    screen::ReplayModel model(std::move(*games));
    for (;;) {
      terminal.show(model.draw(terminal.size()));
      const int key = terminal.key(std::chrono::milliseconds(500));
      if ((signal = terminal.ended_by()) != 0) break;
      if (key != screen::kNoKey && !model.on_key(key)) break;
    }
  }
  if (signal != 0) end_by(signal);
  return kOk;
}

}  // namespace

void add_kxo_replay(const Command& kxo) {
  auto settings = std::make_shared<Settings>();
  const Command command = kxo.subcommand("replay", "Step through games that were saved");
  command.option("FILE", settings->file, "of tandem kxo play, or watch, --save").required();
  command.flag("--plain", settings->plain, "no screen: all boards as text");
  command.footer(kExamples);
  command.action([settings] { return run(*settings); });
}

}  // namespace tandem::cli
