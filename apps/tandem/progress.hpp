// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace tandem::cli {

/// The line at the bottom of a terminal that says how far it is. Elsewhere there is none.
class Progress {
 public:
  Progress();
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void clear();
  /// `part`: from 0 to 1 of it is done.
  void draw(double part, const std::string& text);
  /// A line that stays, above the bar.
  void say(const std::string& line);

 private:
  const bool shown_;
  bool drawn_ = false;
};

}  // namespace tandem::cli
