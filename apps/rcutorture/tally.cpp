// SPDX-License-Identifier: Apache-2.0
#include "tally.hpp"

#include <cinttypes>

namespace tandem::rcutorture {

/// `all`: also the lines without a failure.
void Tally::print(std::FILE* to, bool all) {
  const MutexLock lock(mutex_);
  if (all) {
    std::fprintf(to, "  %-22s %12s %12s %5s %12s %9s\n", "", "operations", "grace per.", "age",
                 "callbacks", "failures");
  }
  for (const Line& line : lines_) {
    const std::uint64_t failures = line.failures.load();
    if (!all && failures == 0) continue;
    const char* const why = line.first_failure.load();
    std::fprintf(to, "  %-22s %12" PRIu64 " %12" PRIu64 " %5u %12" PRIu64 " %9" PRIu64 "%s%s\n",
                 line.name.c_str(), line.operations.load(), line.grace_periods.load(),
                 line.worst_age.load(), line.callbacks.load(), failures, why ? "  " : "",
                 why ? why : "");
  }
  if (!all) return;
  std::fprintf(to, "  ages seen:");
  for (const auto& count : ages) std::fprintf(to, " %" PRIu64, count.load());
  std::fprintf(to, "\n");
}

}  // namespace tandem::rcutorture
