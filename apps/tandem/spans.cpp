// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>

#include "apps/tandem/capture.hpp"

namespace tandem::cli {

std::string_view span_name(trace::Event event) {
  std::string_view name = trace::event_info(event).name;
  for (const std::string_view ending : {"_begin", "_end"}) {
    const bool spans = trace::event_info(event).phase != trace::Phase::kInstant;
    if (spans && name.ends_with(ending)) name.remove_suffix(ending.size());
  }
  return name;
}

std::vector<Span> find_spans(const std::vector<trace::Record>& records) {
  std::vector<Span> spans;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::size_t>> open;
  for (const trace::Record& record : records) {
    const trace::Phase phase = trace::event_info(record.event).phase;
    if (phase == trace::Phase::kInstant) continue;
    auto& stack = open[{record.process, record.thread}];
    if (phase == trace::Phase::kBegin) {
      stack.push_back(spans.size());
      spans.push_back({&record, nullptr});
      continue;
    }
    const auto begun = std::find_if(stack.rbegin(), stack.rend(), [&](std::size_t index) {
      return span_name(spans[index].begin->event) == span_name(record.event);
    });
    if (begun == stack.rend()) continue;
    // What began inside it and has no end lost it: both are over now.
    for (auto inner = stack.rbegin(); inner != begun; ++inner) spans[*inner].end = &record;
    spans[*begun].end = &record;
    stack.erase(begun.base() - 1, stack.end());
  }
  return spans;
}

}  // namespace tandem::cli
