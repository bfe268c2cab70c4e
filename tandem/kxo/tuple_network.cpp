// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/detail/tuple_network.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "tandem/kxo/detail/symmetry.hpp"

namespace tandem::kxo::detail {

TupleNetwork::TupleNetwork(const Rules& rules) : ValueModel(rules) {
  const auto place = [&](int row, int column, int down, int right, int length) {
    const int last_row = row + down * (length - 1), last_column = column + right * (length - 1);
    if (last_row >= rules.height() || last_column >= rules.width() || last_column < 0) return;
    std::vector<std::uint8_t> cells;
    for (int i = 0; i < length; ++i) {
      cells.push_back(
          static_cast<std::uint8_t>((row + i * down) * rules.width() + column + i * right));
    }
    add(cells);
  };
  for (int row = 0; row < rules.height(); ++row) {
    for (int column = 0; column < rules.width(); ++column) {
      for (const auto& [down, right] : {std::pair{0, 1}, {1, 0}, {1, 1}, {1, -1}}) {
        place(row, column, down, right, std::min(rules.goal(), 9));
      }
      if (row + 3 > rules.height() || column + 3 > rules.width()) continue;
      std::vector<std::uint8_t> square;
      for (int i = 0; i < 9; ++i) {
        square.push_back(static_cast<std::uint8_t>((row + i / 3) * rules.width() + column + i % 3));
      }
      add(square);
    }
  }
}

/// Adds a tuple and its images, unless it is an image of one that is there.
void TupleNetwork::add(const std::vector<std::uint8_t>& cells) {
  const auto same = [](std::vector<std::uint8_t> a, std::vector<std::uint8_t> b) {
    std::sort(a.begin(), a.end());
    std::sort(b.begin(), b.end());
    return a == b;
  };
  const auto is_there = [&](const Tuple& tuple) { return same(tuple.cells, cells); };
  if (std::any_of(tuples_.begin(), tuples_.end(), is_there)) return;
  std::size_t entries = 1;
  for (std::size_t i = 0; i < cells.size(); ++i) entries *= 3;
  for (const auto& map : symmetries(rules())) {
    Tuple image{{}, weights_.size()};
    for (const std::uint8_t cell : cells) image.cells.push_back(map.at(cell));
    tuples_.push_back(std::move(image));
  }
  weights_.resize(weights_.size() + entries);
}

/// Calls `use` with the number of each tuple's weight. Stones of who moved last count 1, the other
/// player's 2.
template <class Use>
void TupleNetwork::for_each_weight(const Position& position, Use use) const noexcept {
  const Player moved = opponent(position.to_move());
  const Cells mine = position.of(moved), theirs = position.of(opponent(moved));
  for (const Tuple& tuple : tuples_) {
    std::size_t number = 0;
    for (const std::uint8_t cell : tuple.cells) {
      number = number * 3 + (mine >> cell & 1) + 2 * (theirs >> cell & 1);
    }
    use(tuple.weights + number);
  }
}

float TupleNetwork::value(const Position& position) const noexcept {
  float sum = 0;
  for_each_weight(position, [&](std::size_t weight) { sum += weights_[weight]; });
  return std::tanh(sum);
}

void TupleNetwork::learn(const Position& position, float target, float rate) {
  const float guess = value(position);
  const float step = rate * (target - guess) / static_cast<float>(tuples_.size());
  for_each_weight(position, [&](std::size_t weight) { weights_[weight] += step; });
}

std::vector<std::uint32_t> TupleNetwork::save() const {
  std::vector<std::uint32_t> words;
  words.reserve(weights_.size());
  for (const float weight : weights_) words.push_back(std::bit_cast<std::uint32_t>(weight));
  return words;
}

bool TupleNetwork::load(const std::vector<std::uint32_t>& words) {
  if (words.size() != weights_.size()) return false;
  for (std::size_t i = 0; i < words.size(); ++i) {
    weights_[i] = std::bit_cast<float>(words[i]);
    if (!std::isfinite(weights_[i])) return false;
  }
  return true;
}

}  // namespace tandem::kxo::detail
