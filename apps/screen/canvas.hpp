// SPDX-License-Identifier: Apache-2.0
/// What a screen shows, before any terminal: rows of characters with styles.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::screen {

struct Size {
  int rows = 0, columns = 0;
  friend constexpr bool operator==(const Size&, const Size&) = default;
};

/// Bits. The inks are hints: who sees no colours still has the characters and the other styles.
enum Style : std::uint8_t {
  kPlain = 0,
  kBold = 1,
  kUnderlined = 2,
  kReversed = 4,
  kDim = 8,
  kInkO = 16,
  kInkX = 32,
};
constexpr Style operator|(Style a, Style b) {
  return static_cast<Style>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}

/// Text is ASCII, so that it looks the same in every locale.
class Canvas {
 public:
  struct Square {
    char character = ' ';
    Style style = kPlain;
    friend constexpr bool operator==(const Square&, const Square&) = default;
  };

  explicit Canvas(Size size);

  Size size() const { return size_; }
  /// What lies outside is cut off; characters that cannot be shown become '?'.
  void put(int row, int column, std::string_view text, Style style = kPlain);
  const Square& at(int row, int column) const;
  /// A row without the spaces at its end; all rows, each with a line end.
  std::string line(int row) const;
  std::string text() const;

 private:
  Size size_;
  std::vector<Square> squares_;
};

/// `parts` with two spaces between them; where `columns` are too few, without the first ones.
std::string last_that_fit(const std::vector<std::string>& parts, int columns);

}  // namespace tandem::screen
