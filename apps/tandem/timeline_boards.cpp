// SPDX-License-Identifier: Apache-2.0
#include <iterator>
#include <map>
#include <string_view>
#include <utility>

#include "apps/tandem/timeline_drawing.hpp"
#include "tandem/abi/kxo.h"

namespace tandem::cli {
namespace {

constexpr std::size_t kMostBoards = 64;
constexpr double kPitch = 8, kBar = 6;  // of rows, in px
constexpr double kLeast = 0.8;          // what a moment is wide
constexpr double kEndsApart = 3;        // ends of games that are closer are drawn as one

constexpr std::string_view kNames[] = {"user", "mcts", "negamax", "td", "random", "perfect", "q"};
static_assert(std::size(kNames) == TANDEM_KXO_PLAYERS);

class Rows {
 public:
  Rows(const Story& story, const Palette& palette) : story_(story), palette_(palette) {}
  std::string draw(double& y);

 private:
  template <class... Values>
  void put(fmt::format_string<Values...> text, Values&&... values) {
    fmt::format_to(std::back_inserter(body_), text, std::forward<Values>(values)...);
  }
  double x(double at) const { return kLeft + kWidth * at / story_.length; }
  void draw_head(double y);
  void draw_row(const Story::Board& board, double y);
  void draw_thinking(const Story::Board& board, double y);
  void draw_ends(const Story::Board& board, double y);

  const Story& story_;
  const Palette& palette_;
  std::string body_;
};

std::string summary(const Story::Board& board) {
  std::size_t won[3] = {};
  for (const auto& end : board.ended) {
    if (end.winner >= 0 && end.winner < 3) ++won[end.winner];
  }
  std::map<std::uint32_t, double> cores;
  for (const auto& think : board.thinking) cores[think.cpu] += think.to - think.from;
  std::string text =
      fmt::format("board {}: {} (O) and {} (X), {} moves, {} games: O won {}, X {}, nobody {}",
                  board.id, player_name(board.o), player_name(board.x), board.moves,
                  board.ended.size(), won[1], won[2], won[0]);
  for (const auto& [cpu, ns] : cores) text += fmt::format("; {:.3g} ms on core {}", ns / 1e6, cpu);
  return text;
}

/// One line for each agent; thoughts that touch are one piece of it.
void Rows::draw_thinking(const Story::Board& board, double y) {
  struct Line {
    std::string path;
    double from = 0, to = -1;
    void finish(double y) {
      if (to >= from) path += fmt::format("M{} {}h{}", px(from), px(y), px(to - from));
    }
  };
  std::map<std::size_t, Line> lines;
  for (const auto& think : board.thinking) {
    Line& line = lines[palette_.of_agent(think.player)];
    const double from = x(think.from), to = std::max(x(think.to), from + kLeast);
    if (from <= line.to + 0.3) {
      line.to = std::max(line.to, to);
      continue;
    }
    line.finish(y + kBar / 2);
    line.from = from;
    line.to = to;
  }
  for (auto& [colour, line] : lines) {
    line.finish(y + kBar / 2);
    put("<path fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" d=\"{}\"/>\n", kColours[colour],
        px(kBar), line.path);
  }
}

void Rows::draw_ends(const Story::Board& board, double y) {
  std::string path;
  double last = 0;
  for (const auto& end : board.ended) {
    const double here = x(end.at);
    if (here < last + kEndsApart) continue;
    path += fmt::format("M{} {}v{}", px(here), px(y), px(kBar));
    last = here;
  }
  if (!path.empty()) put("<path class=\"end\" d=\"{}\"/>\n", path);
}

void Rows::draw_row(const Story::Board& board, double y) {
  put("<g><title>{}</title><rect class=\"band\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n",
      summary(board), px(kLeft), px(y), px(kWidth), px(kBar));
  put("<text class=\"tiny\" x=\"12\" y=\"{}\">{} {} – {}</text>\n", px(y + kBar), board.id,
      player_name(board.o), player_name(board.x));
  draw_thinking(board, y);
  draw_ends(board, y);
  body_ += "</g>\n";
}

void Rows::draw_head(double y) {
  std::size_t moves = 0, games = 0;
  for (const auto& board : story_.boards) {
    moves += board.moves;
    games += board.ended.size();
  }
  put("<text x=\"12\" y=\"{}\">{} boards</text>\n", px(y), story_.boards.size());
  double left = kLeft;
  const auto words = [&](std::string_view text) {
    put("<text class=\"small\" x=\"{}\" y=\"{}\">{}</text>\n", px(left), px(y), text);
    left += 18 + static_cast<double>(text.size()) * kLetter;
  };
  for (const int player : story_.agents) {
    put("<rect fill=\"{}\" x=\"{}\" y=\"{}\" width=\"9\" height=\"9\"/>\n",
        kColours[palette_.of_agent(player)], px(left), px(y - 9));
    left += 14;
    words(fmt::format("{} thinks", player_name(player)));
  }
  put("<path class=\"end\" d=\"M{} {}v9\"/>\n", px(left + 4), px(y - 9));
  left += 10;
  words(fmt::format("a game ends; {} moves, {} games in all", moves, games));
}

std::string Rows::draw(double& y) {
  y += 14;
  draw_head(y);
  y += 8;
  const std::size_t rows = std::min(story_.boards.size(), kMostBoards);
  for (std::size_t i = 0; i < rows; ++i, y += kPitch) draw_row(story_.boards[i], y);
  if (rows < story_.boards.size()) {
    y += 12;
    put("<text class=\"small\" x=\"12\" y=\"{}\">and {} more</text>\n", px(y),
        story_.boards.size() - rows);
  }
  y += 12;
  return std::move(body_);
}

}  // namespace

std::string_view player_name(int player) {
  const auto at = static_cast<std::size_t>(player);
  return at < std::size(kNames) ? kNames[at] : "?";
}

std::string draw_boards(const Story& story, const Palette& palette, double& y) {
  return story.boards.empty() ? std::string{} : Rows(story, palette).draw(y);
}

}  // namespace tandem::cli
