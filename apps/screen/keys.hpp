// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tandem::screen {

/// Keys that are no characters. A character is a key of its own value.
enum Key : int {
  kNoKey = -1,
  kUp = 0x1000,
  kDown,
  kLeft,
  kRight,
  kPageUp,
  kPageDown,
  kHome,
  kEnd,
  kEnter = '\n',
  kBackspace = 8,
  kEscape = 27,
};

constexpr int ctrl(char letter) { return letter & 0x1F; }

}  // namespace tandem::screen
