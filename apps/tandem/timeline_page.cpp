// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <iterator>

#include "apps/tandem/timeline.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tandem trace</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>
body{font:14px/1.5 system-ui,sans-serif;max-width:1200px;margin:24px auto;padding:0 16px;background:#fff;color:#20242c}
svg{width:100%;height:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:3px 14px 3px 0;text-align:right;border-bottom:1px solid #d4d8df}th:first-child,td:first-child{text-align:left}
@media (prefers-color-scheme:dark){body{background:#15181e;color:#e8eaee}th,td{border-color:#343b47}}
</style></head><body>
)";

constexpr std::string_view kFoot =
    R"(<p>Tall bands: for whom engines worked on that core, as shares of each slice of time. Hover for
names and shares. Every event with its arguments is in the file of <code>-o</code>, which
ui.perfetto.dev and trace_processor read.</p>
</body></html>
)";

}  // namespace

std::string to_html(const Capture& capture) {
  const Story story = tell(capture);
  std::string page(kHead);
  page += to_svg(capture);
  auto out = std::back_inserter(page);
  page +=
      "<table><tr><th>process</th><th>pid</th><th>events</th><th>operations</th><th>faults</th>"
      "<th>seconds</th></tr>\n";
  for (const auto& process : story.processes) {
    fmt::format_to(out,
                   "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2f}</td></tr>"
                   "\n",
                   escape_markup(process.name), process.pid, process.events, process.operations,
                   process.faults, (process.last - process.first) / 1e9);
  }
  fmt::format_to(out, "</table>\n<p>{} events, {} dropped.</p>\n", capture.recording.records.size(),
                 capture.recording.dropped);
  page += kFoot;
  return page;
}

}  // namespace tandem::cli
