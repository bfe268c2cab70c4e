// SPDX-License-Identifier: Apache-2.0
/// Boards of game devices in a Story.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "apps/tandem/timeline.hpp"

namespace tandem::cli {
namespace {

using trace::Event;
using trace::Record;

/// Ids are a device's, and a process has one.
using BoardKey = std::pair<std::uint32_t, std::uint64_t>;

class Boards {
 public:
  explicit Boards(Story& story) : story_(story) {}

  Story::Board& of(const Record& record) {
    const auto [at, fresh] =
        index_.try_emplace({record.process, record.arguments[0]}, story_.boards.size());
    if (fresh) {
      story_.boards.emplace_back();
      story_.boards.back().id = record.arguments[0];
    }
    return story_.boards[at->second];
  }

 private:
  Story& story_;
  std::map<BoardKey, std::size_t> index_;
};

void set_players(Story::Board& board, std::uint64_t players) {
  board.o = static_cast<int>(players & 0xff);
  board.x = static_cast<int>(players >> 8 & 0xff);
}

}  // namespace

void tell_boards(const Capture& capture, const std::vector<Span>& spans, std::uint64_t start_ns,
                 Story& story) {
  const auto since = [&](const Record& record) {
    return static_cast<double>(record.time_ns - start_ns);
  };
  Boards boards(story);
  std::set<int> agents;
  for (const Record& record : capture.recording.records) {
    switch (record.event) {
      case Event::kGameBegun:
      case Event::kPermission:
        set_players(boards.of(record), record.arguments[record.event == Event::kGameBegun ? 2 : 1]);
        break;
      case Event::kGameMove:
        ++boards.of(record).moves;
        break;
      case Event::kGameEnded:
        boards.of(record).ended.push_back({since(record), static_cast<int>(record.arguments[2])});
        break;
      default:
        break;
    }
  }
  for (const Span& span : spans) {
    if (span.begin->event != Event::kThinkBegin || span.begin->cpu == Record::kNoCpu) continue;
    const double to = span.end != nullptr ? since(*span.end) : story.length;
    const auto player = static_cast<int>(span.begin->arguments[1]);
    boards.of(*span.begin).thinking.push_back({span.begin->cpu, player, since(*span.begin), to});
    agents.insert(player);
  }
  story.agents.assign(agents.begin(), agents.end());
  std::stable_sort(story.boards.begin(), story.boards.end(),
                   [](const auto& a, const auto& b) { return a.id < b.id; });
}

}  // namespace tandem::cli
