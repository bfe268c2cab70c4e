// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string_view>

#include "apps/tandem/timeline_drawing.hpp"

namespace tandem::cli {
namespace {

constexpr double kRight = 24, kBin = 2;  // all in px
constexpr std::size_t kBins = static_cast<std::size_t>(kWidth / kBin);
constexpr double kEngineHeight = 48, kRunHeight = 14, kGap = 12, kRowHeight = 20;
constexpr double kMarkLine = 14;
constexpr std::size_t kMarkLines = 4, kMostMarks = 40, kMostRows = 40;

constexpr std::string_view kStyle = R"(<style>
text{font:12px system-ui,sans-serif;fill:#20242c}.small{font-size:11px;fill:#59606d}.tiny{font-size:7.5px;fill:#59606d}
.end{stroke:#20242c;stroke-width:1}.back{fill:#fff}.band{fill:#f1f3f6}.grid{stroke:#d4d8df;stroke-width:1}
.mark{stroke:#20242c;stroke-width:1;stroke-dasharray:3 3;opacity:.6}.sign{fill:#20242c;stroke:#fff;stroke-width:.8}
@media (prefers-color-scheme:dark){text{fill:#e8eaee}.small,.tiny{fill:#a4abb8}.end{stroke:#f4f5f7}.back{fill:#15181e}.band{fill:#21262f}
.grid{stroke:#343b47}.mark{stroke:#e8eaee}.sign{fill:#f4f5f7;stroke:#15181e}}
</style>)";

class Picture {
 public:
  Picture(const Capture& capture, const Story& story)
      : capture_(capture), story_(story), palette_(story) {}
  std::string draw();

 private:
  using Shares = std::vector<std::array<double, kColours.size()>>;

  template <class... Values>
  void put(fmt::format_string<Values...> text, Values&&... values) {
    fmt::format_to(std::back_inserter(body_), text, std::forward<Values>(values)...);
  }
  double x(double at) const { return kLeft + kWidth * at / story_.length; }
  Shares shares(const std::vector<Story::Work>& works, std::uint32_t cpu) const;
  Shares presence(std::uint32_t cpu) const;
  double stack(const Shares& shares, double height, std::string_view what, std::uint32_t cpu);
  void draw_head();
  void draw_core(std::uint32_t cpu);
  void draw_process(std::size_t index);
  void draw_sign(char kind, double at, std::string_view what);
  void draw_grace_periods();
  void draw_marks_and_axis();
  void draw_legend();

  const Capture& capture_;
  const Story& story_;
  const Palette palette_;
  std::string body_;
  double y_ = 0;
  double top_ = 0;  // of the rows
};

/// How much of each bin's time each colour had.
Picture::Shares Picture::shares(const std::vector<Story::Work>& works, std::uint32_t cpu) const {
  Shares result(kBins);
  const double bin = story_.length / kBins;
  for (const auto& work : works) {
    if (work.cpu != cpu) continue;
    auto at = static_cast<std::size_t>(std::max(0.0, work.from / bin));
    for (; at < kBins && static_cast<double>(at) * bin < work.to; ++at) {
      const double from = std::max(work.from, static_cast<double>(at) * bin);
      const double to = std::min(work.to, static_cast<double>(at + 1) * bin);
      result[at][palette_.of(work)] += (to - from) / bin;
    }
  }
  return result;
}

/// Who recorded events in each bin, by their numbers: all that is known without the scheduler.
Picture::Shares Picture::presence(std::uint32_t cpu) const {
  Shares result(kBins);
  for (const auto& event : story_.seen) {
    if (event.cpu != cpu || !story_.processes[event.process].client) continue;
    const auto at = static_cast<std::size_t>(event.from / story_.length * kBins);
    result[std::min(at, kBins - 1)][palette_.of(event)] += 1;
  }
  for (auto& bin : result) {
    double sum = 0;
    for (const double each : bin) sum += each;
    for (double& each : bin) each = sum > 0 ? each / sum : 0;
  }
  return result;
}

/// Draws a band of bars, one colour upon the other. Returns: how much of the time anybody had.
double Picture::stack(const Shares& shares, double height, std::string_view what,
                      std::uint32_t cpu) {
  put("<rect class=\"band\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n", px(kLeft), px(y_),
      px(kWidth), px(height));
  std::vector<double> below(kBins, 0);
  double total = 0;
  for (std::size_t colour = 0; colour < kColours.size(); ++colour) {
    std::string path;
    double sum = 0;
    for (std::size_t i = 0; i < kBins; ++i) {
      const double share = std::min(shares[i][colour], 1 - below[i]);
      if (share * height < 0.05) continue;
      const double bottom = y_ + height * (1 - below[i]);
      // Of one fill, so that neighbours need not meet exactly.
      path += fmt::format("M{} {}h{}v-{}h-{}z", px(kLeft + static_cast<double>(i) * kBin),
                          px(bottom), px(kBin), px(share * height), px(kBin));
      below[i] += share;
      sum += share;
    }
    if (path.empty()) continue;
    total += sum;
    put("<path fill=\"{}\" d=\"{}\"><title>core {}: {} {}, {:.0f} % of the time</title></path>\n",
        kColours[colour], path, cpu, what, palette_.name(colour), 100 * sum / kBins);
  }
  return total / kBins;
}

void Picture::draw_head() {
  const auto& recording = capture_.recording;
  y_ = 22;
  put("<text x=\"12\" y=\"{}\" font-weight=\"600\">tandem trace: {}</text>\n", px(y_),
      escape_markup(capture_.command));
  y_ += 18;
  put("<text class=\"small\" x=\"12\" y=\"{}\">{} events of {} processes in {:.2f} s, {} dropped; "
      "{}"
      "</text>\n",
      px(y_), recording.records.size(), story_.processes.size(), story_.length / 1e9,
      recording.dropped,
      capture_.sched.empty() ? "thin bands: who recorded events there (no scheduler's view)"
                             : "thin bands: who ran, says the kernel's scheduler");
  y_ += 10;
}

void Picture::draw_core(std::uint32_t cpu) {
  const double top = y_;
  const double busy = stack(shares(story_.engines, cpu), kEngineHeight, "engines for", cpu);
  put("<text x=\"12\" y=\"{}\">core {}</text>\n", px(top + 18), cpu);
  put("<text class=\"small\" x=\"12\" y=\"{}\">engines {:.0f} %</text>\n", px(top + 34),
      busy * 100);
  y_ += kEngineHeight + 2;
  const bool known = !story_.running.empty();
  const double ran = stack(known ? shares(story_.running, cpu) : presence(cpu), kRunHeight,
                           known ? "ran" : "events of", cpu);
  put("<text class=\"small\" x=\"12\" y=\"{}\">{}</text>\n", px(y_ + 11),
      known ? fmt::format("ran {:.0f} %", ran * 100) : std::string("clients"));
  y_ += kRunHeight + kGap;
}

void Picture::draw_sign(char kind, double at, std::string_view what) {
  const double cx = x(at), cy = y_ + kRowHeight / 2;
  std::string shape;
  if (kind == 'k') {  // a cross
    shape = fmt::format("M{0} {1}l2-2 4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4z", px(cx - 6),
                        px(cy - 4));
  } else if (kind == 'f') {  // a diamond
    shape = fmt::format("M{} {}l6 6-6 6-6-6z", px(cx), px(cy - 6));
  } else {  // a triangle
    shape = fmt::format("M{} {}l6 11h-12z", px(cx), px(cy - 6));
  }
  put("<path class=\"sign\" d=\"{}\"><title>{} at {:.3f} s</title></path>\n", shape,
      escape_markup(what), at / 1e9);
}

void Picture::draw_process(std::size_t index) {
  const Story::Process& process = story_.processes[index];
  const double from = x(std::max(0.0, process.first)),
               to = x(std::max(process.first, process.last));
  put("<text class=\"small\" x=\"12\" y=\"{}\">{}</text>\n", px(y_ + 14),
      escape_markup(process.name));
  put("<rect fill=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"8\" rx=\"2\"><title>{}, pid {}: "
      "{} "
      "events, {} operations, {} faults</title></rect>\n",
      kColours[palette_.of_process(index)], px(from), px(y_ + 6), px(std::max(1.0, to - from)),
      escape_markup(process.name), process.pid, process.events, process.operations, process.faults);
  for (const double at : process.forked) draw_sign('r', at, process.name + " forked, rebinds");
  for (const double at : process.faulted) draw_sign('f', at, process.name + ": fault");
  if (!process.killed.empty()) {
    draw_sign('k', process.killed.front(), process.name + ": ended with its queues open");
  }
  y_ += kRowHeight;
}

void Picture::draw_grace_periods() {
  if (story_.grace_periods.empty()) return;
  std::string path;
  double last = -1;
  for (const double at : story_.grace_periods) {
    const double here = std::floor(x(at));
    if (here == last) continue;
    path += fmt::format("M{} {}v8", px(here), px(y_ + 6));
    last = here;
  }
  put("<text class=\"small\" x=\"12\" y=\"{}\">RCU</text>\n", px(y_ + 14));
  put("<path stroke=\"{}\" fill=\"none\" d=\"{}\"><title>ends of RCU grace "
      "periods</title></path>\n",
      kColours.back(), path);
  y_ += kRowHeight;
}

/// Lines that go through all rows, and their texts above, where there is room.
void Picture::draw_marks_and_axis() {
  std::string behind;
  const double end = y_;
  double step = std::pow(10, std::floor(std::log10(story_.length / 4)));
  if (story_.length / step > 20) step *= 5;
  if (story_.length / step > 10) step *= 2;
  const double unit = step >= 1e8 ? 1e9 : step >= 1e5 ? 1e6 : 1e3;
  const char* const name = unit == 1e9 ? "s" : unit == 1e6 ? "ms" : "us";
  for (int i = 0; i * step <= story_.length; ++i) {
    const double at = i * step;
    behind +=
        fmt::format("<path class=\"grid\" d=\"M{0} {1}V{2}\"/>\n", px(x(at)), px(top_), px(end));
    put("<text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{:g} {}</text>\n",
        px(x(at)), px(end + 14), at / unit, name);
  }
  std::array<double, kMarkLines> free_from{};
  for (std::size_t i = 0; i < std::min(story_.marks.size(), kMostMarks); ++i) {
    const auto& mark = story_.marks[i];
    const double width = static_cast<double>(mark.text.size()) * kLetter + 8;
    const double left = std::min(x(mark.at) + 3, kLeft + kWidth + kRight - width);
    std::size_t line = 0;
    while (line + 1 < kMarkLines && free_from[line] > left) ++line;
    const double base = top_ - 6 - static_cast<double>(kMarkLines - 1 - line) * kMarkLine;
    if (free_from[line] <= left) {
      free_from[line] = left + width;
      put("<text class=\"small\" x=\"{}\" y=\"{}\">{}</text>\n", px(left), px(base),
          escape_markup(mark.text));
    }
    put("<path class=\"mark\" d=\"M{} {}V{}\"><title>{} at {:.3f} s</title></path>\n",
        px(x(mark.at)), px(base - 9), px(end), escape_markup(mark.text), mark.at / 1e9);
  }
  body_.insert(0, behind);
  y_ += 20;
}

void Picture::draw_legend() {
  y_ += 4;
  const double row = y_;
  double left = kLeft;
  const auto word = [&](std::string_view text) {
    put("<text class=\"small\" x=\"{}\" y=\"{}\">{}</text>\n", px(left + 10), px(row + 14), text);
    left += 26 + static_cast<double>(text.size()) * kLetter;
  };
  const auto sign = [&](char kind, std::string_view text) {
    draw_sign(kind, (left - kLeft) / kWidth * story_.length, text);
    word(text);
  };
  sign('r', "forked, rebinds");
  sign('f', "faulted");
  sign('k', "gone with open queues");
  put("<text class=\"small\" x=\"{}\" y=\"{}\">tall bands: for whom engines worked{}; colours as "
      "the "
      "rows below the cores</text>\n",
      px(left), px(row + 14), story_.boards.empty() ? "" : ", or which agent thought");
  y_ += kRowHeight;
}

std::string Picture::draw() {
  draw_head();
  if (!story_.marks.empty()) y_ += kMarkLines * kMarkLine;
  y_ += 6;
  top_ = y_;
  for (const std::uint32_t cpu : story_.cpus) draw_core(cpu);
  body_ += draw_boards(story_, palette_, y_);
  const std::size_t rows = std::min(story_.processes.size(), kMostRows);
  for (std::size_t i = 0; i < rows; ++i) draw_process(i);
  draw_grace_periods();
  draw_marks_and_axis();
  if (!story_.processes.empty()) draw_legend();
  y_ += 8;
  const double width = kLeft + kWidth + kRight;
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" role=\"img\" "
      "aria-label=\"timeline of cores and processes\">\n{2}\n"
      "<rect class=\"back\" width=\"{0}\" height=\"{1}\"/>\n{3}</svg>\n",
      px(width), px(y_), kStyle, body_);
}

}  // namespace

std::string Palette::name(std::size_t colour) const {
  const std::size_t agents = story_.agents.size();
  const bool rest =
      colour == kColours.size() - 1 && story_.processes.size() + agents > kColours.size();
  if (rest) return "others";
  if (colour >= clients_ && colour < clients_ + agents) {
    return std::string(player_name(story_.agents[colour - clients_]));
  }
  return escape_markup(story_.processes[colour < clients_ ? colour : colour - agents].name);
}

std::string escape_markup(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<') {
      safe += "&lt;";
    } else if (c == '&') {
      safe += "&amp;";
    } else if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') {
      safe += ' ';
    } else {
      safe += c;
    }
  }
  return safe;
}

std::string to_svg(const Capture& capture) {
  const Story story = tell(capture);
  return Picture(capture, story).draw();
}

}  // namespace tandem::cli
