// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

#include "apps/tandem/timeline.hpp"

/// What the parts of a timeline's picture share.
namespace tandem::cli {

/// Okabe and Ito's colours, told apart by people with any kind of colour vision, without the yellow
/// and the black that light and dark pages swallow. The last one is for everybody else.
inline constexpr std::array<const char*, 7> kColours{"#0072b2", "#e69f00", "#009e73", "#cc79a7",
                                                     "#56b4e9", "#d55e00", "#8a8f98"};

/// In px: where time begins, how long it is, and how wide a letter of a small text.
inline constexpr double kLeft = 132, kWidth = 1000, kLetter = 6.4;

/// A pixel coordinate without superfluous digits.
inline std::string px(double value) {
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

/// Who has which colour: clients, then agents, then other processes.
class Palette {
 public:
  explicit Palette(const Story& story)
      : story_(story),
        clients_(static_cast<std::size_t>(
            std::count_if(story.processes.begin(), story.processes.end(),
                          [](const Story::Process& process) { return process.client; }))) {}

  std::size_t of_process(std::size_t process) const {
    return last(process < clients_ ? process : process + story_.agents.size());
  }
  std::size_t of_agent(int player) const {
    const auto at = std::find(story_.agents.begin(), story_.agents.end(), player);
    return last(clients_ + static_cast<std::size_t>(at - story_.agents.begin()));
  }
  std::size_t of(const Story::Work& work) const {
    return work.agent >= 0 ? of_agent(work.agent) : of_process(work.process);
  }
  std::string name(std::size_t colour) const;

 private:
  static std::size_t last(std::size_t colour) { return std::min(colour, kColours.size() - 1); }

  const Story& story_;
  std::size_t clients_;  // they stand first
};

/// "mcts" for TANDEM_KXO_MCTS; "?" for a number that is none.
std::string_view player_name(int player);

/// Rows of game boards, with who thought when, from `y` on, which it moves below them.
std::string draw_boards(const Story& story, const Palette& palette, double& y);

}  // namespace tandem::cli
