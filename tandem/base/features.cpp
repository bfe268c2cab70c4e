// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/features.hpp"

#include <array>
#include <cstdlib>

namespace tandem {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"procmap_query", "membarrier", "peerpidfd",
                                                    "procmem", "rseq"};

unsigned disabled_mask() noexcept {
  const char* list = std::getenv("TANDEM_DISABLE");
  unsigned mask = 0;
  for (std::string_view rest = list == nullptr ? "" : list; !rest.empty();) {
    const auto comma = rest.find(',');
    const auto name = rest.substr(0, comma);
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      if (name == kNames[i]) mask |= 1u << i;
    }
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
  }
  return mask;
}

}  // namespace

bool feature_allowed(Feature feature) noexcept {
  static const unsigned disabled = disabled_mask();
  return (disabled >> static_cast<unsigned>(feature) & 1) == 0;
}

std::string_view feature_name(Feature feature) noexcept {
  return kNames[static_cast<std::size_t>(feature)];
}

}  // namespace tandem
