// SPDX-License-Identifier: Apache-2.0
#include "tandem/trace/event.hpp"

#include <utility>

namespace tandem::trace {
namespace {

constexpr EventInfo kEvents[] = {
#define TANDEM_TRACE_INFO(name, enumerator, category, phase, ...) \
  {#name, Category::category, Phase::phase, {__VA_ARGS__}},
    TANDEM_TRACE_EVENTS(TANDEM_TRACE_INFO)
#undef TANDEM_TRACE_INFO
};

constexpr EventInfo kUnknown{};

constexpr std::pair<std::string_view, Category> kCategories[] = {
    {"engine", Category::kEngine},   {"queue", Category::kQueue}, {"fault", Category::kFault},
    {"process", Category::kProcess}, {"rcu", Category::kRcu},     {"mark", Category::kMark},
    {"kxo", Category::kKxo},
};

}  // namespace

const EventInfo& event_info(Event event) noexcept {
  const auto index = static_cast<std::size_t>(event);
  return index < std::size(kEvents) ? kEvents[index] : kUnknown;
}

std::string_view category_name(Category category) noexcept {
  for (const auto& [name, value] : kCategories) {
    if (value == category) return name;
  }
  return "unknown";
}

std::optional<Categories> parse_categories(std::string_view list) noexcept {
  Categories set = kNoCategories;
  for (;;) {
    const std::size_t comma = list.find(',');
    const std::string_view word = list.substr(0, comma);
    Categories named = word == "all" ? kAllCategories : kNoCategories;
    for (const auto& [name, value] : kCategories) {
      if (word == name) named = static_cast<Categories>(value);
    }
    if (named == kNoCategories) return std::nullopt;
    set |= named;
    if (comma == std::string_view::npos) return set;
    list.remove_prefix(comma + 1);
  }
}

}  // namespace tandem::trace
