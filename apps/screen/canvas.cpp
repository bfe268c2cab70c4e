// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/canvas.hpp"

#include <algorithm>

namespace tandem::screen {

Canvas::Canvas(Size size)
    : size_{std::max(size.rows, 0), std::max(size.columns, 0)},
      squares_(static_cast<std::size_t>(size_.rows) * static_cast<std::size_t>(size_.columns)) {}

const Canvas::Square& Canvas::at(int row, int column) const {
  return squares_[static_cast<std::size_t>(row) * static_cast<std::size_t>(size_.columns) +
                  static_cast<std::size_t>(column)];
}

void Canvas::put(int row, int column, std::string_view text, Style style) {
  if (row < 0 || row >= size_.rows) return;
  for (const char c : text) {
    if (column >= size_.columns) return;
    if (column >= 0) {
      const auto index = static_cast<std::size_t>(row) * static_cast<std::size_t>(size_.columns) +
                         static_cast<std::size_t>(column);
      squares_[index] = {c >= ' ' && c <= '~' ? c : '?', style};
    }
    ++column;
  }
}

std::string Canvas::line(int row) const {
  std::string text;
  for (int column = 0; column < size_.columns; ++column) text += at(row, column).character;
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

std::string Canvas::text() const {
  std::string text;
  for (int row = 0; row < size_.rows; ++row) text += line(row) + '\n';
  return text;
}

std::string last_that_fit(const std::vector<std::string>& parts, int columns) {
  std::string text;
  for (std::size_t i = parts.size(); i-- > 0;) {
    const std::string longer = text.empty() ? parts[i] : parts[i] + "  " + text;
    if (static_cast<int>(longer.size()) > columns) break;
    text = longer;
  }
  return text;
}

}  // namespace tandem::screen
