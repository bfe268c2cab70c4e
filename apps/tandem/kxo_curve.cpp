// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/kxo_curve.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "apps/tandem/cli.hpp"

namespace tandem::cli {
namespace {

using kxo::Evaluation;

constexpr double kWidth = 640, kHeight = 240, kLeft = 60, kTop = 50;

/// A share of the evaluations, as it is told and drawn.
struct Series {
  const char* label;
  const char* color;
  double Evaluation::*share;
};
constexpr Series kSeries[] = {
    {"moves that keep the value", "#00798c", &Evaluation::kept_share},
    {"points against the published model", "#edae49", &Evaluation::points_share},
    {"lost to random moves", "#d1495b", &Evaluation::lost_to_random},
};

double y_of(double share) { return kTop + kHeight * (1 - std::clamp(share, 0.0, 1.0)); }

std::string text(double x, double y, const char* anchor, const std::string& what) {
  return fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     what);
}

std::string grid(double most_games) {
  std::string svg;
  for (int percent = 0; percent <= 100; percent += 25) {
    const double y = y_of(percent / 100.0);
    svg += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.0f}\" y2=\"{:.0f}\" stroke=\"#ccc\"/>\n",
                       kLeft, kLeft + kWidth, y, y);
    svg += text(kLeft - 6, y + 4, "end", fmt::format("{} %", percent));
  }
  for (int quarter = 0; quarter <= 4; ++quarter) {
    const double part = quarter / 4.0;
    const auto games = static_cast<std::uint64_t>(most_games * part);
    svg += text(kLeft + kWidth * part, kTop + kHeight + 18, "middle", human_count(games));
  }
  return svg + text(kLeft + kWidth / 2, kTop + kHeight + 36, "middle", "games");
}

}  // namespace

std::string curve_csv(const std::vector<Evaluation>& curve) {
  std::string csv = "games,seconds,kept_share,points_share,lost_to_random,published\n";
  const auto known = [](double share) {
    return share == Evaluation::kUnknown ? std::string() : fmt::format("{:.6f}", share);
  };
  for (const Evaluation& point : curve) {
    csv += fmt::format("{},{:.3f},{},{},{},{}\n", point.games, point.seconds,
                       known(point.kept_share), known(point.points_share),
                       known(point.lost_to_random), point.published ? 1 : 0);
  }
  return csv;
}

std::string curve_svg(const std::string& title, const std::vector<Evaluation>& curve) {
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kLeft + kWidth + 30, kTop + kHeight + 80);
  svg += text(kLeft + kWidth / 2, 24, "middle", title);
  const double most = curve.empty() ? 1 : std::max(1.0, static_cast<double>(curve.back().games));
  svg += grid(most);
  double legend = kLeft;
  for (const Series& series : kSeries) {
    std::string points;
    for (const Evaluation& point : curve) {
      const double share = point.*series.share;
      if (share == Evaluation::kUnknown) continue;
      points += fmt::format("{:.1f},{:.1f} ",
                            kLeft + kWidth * static_cast<double>(point.games) / most, y_of(share));
    }
    if (points.empty()) continue;
    svg += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n",
                       points, series.color);
    const double y = kTop + kHeight + 60;
    svg += fmt::format(
        "<line x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.0f}\" y2=\"{:.0f}\" stroke=\"{}\" "
        "stroke-width=\"3\"/>\n",
        legend, legend + 24, y - 4, y - 4, series.color);
    svg += text(legend + 30, y, "start", series.label);
    legend += 250;
  }
  return svg + "</svg>\n";
}

}  // namespace tandem::cli
