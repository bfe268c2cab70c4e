// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/progress.hpp"

#include <unistd.h>

#include <algorithm>

#include "apps/tandem/cli.hpp"

namespace tandem::cli {

Progress::Progress() : shown_(styled(STDERR_FILENO)) {}

void Progress::clear() {
  if (shown_ && drawn_) narrate("\r\033[K");
  drawn_ = false;
}

void Progress::draw(double part, const std::string& text) {
  if (!shown_) return;
  constexpr int kWidth = 30;
  const double shown = std::clamp(part, 0.0, 1.0);
  const auto full = static_cast<std::size_t>(shown * kWidth);
  narrate("\r\033[K[{}{}] {:3.0f} %  {}", std::string(full, '#'), std::string(kWidth - full, '.'),
          shown * 100, text);
  drawn_ = true;
}

void Progress::say(const std::string& line) {
  clear();
  narrate("{}\n", line);
}

}  // namespace tandem::cli
