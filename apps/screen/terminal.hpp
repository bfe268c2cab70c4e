// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "apps/screen/canvas.hpp"
#include "apps/screen/keys.hpp"
#include "tandem/base/result.hpp"

namespace tandem::screen {

/// The terminal of this process, from open() to the destructor: full screen, keys one by one, ^P
/// and ^Q as keys like others.
///
/// It is given back as it was, also when the process is stopped by ^Z, and when SIGINT, SIGTERM or
/// SIGHUP come: those are told by ended_by(), and the caller ends.
/// Thread safety: one thread; one Terminal at a time.
class Terminal {
 public:
  /// Errors: a sentence about why there can be no screen, and what to try.
  static Result<std::unique_ptr<Terminal>, std::string> open();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  Size size() const;
  void show(const Canvas& canvas);
  /// The next key; kNoKey when none came in time, or the size changed.
  int key(std::chrono::milliseconds longest);
  /// Signals are handled here and in key(). Returns: the signal that asks us to end, or 0.
  int ended_by();

 private:
  Terminal() = default;
  void handle_signals();
  int read_key();

  struct Saved;
  std::unique_ptr<Saved> saved_;
};

}  // namespace tandem::screen
