// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "tandem/kxo/value_model.hpp"

namespace tandem::kxo::detail {

/// A network of n-tuples: the hyperbolic tangent of a sum of weights, one for what is on the cells
/// of each tuple. Tuples are the rows of the game, at most nine cells of each, and the squares of
/// three by three; those that symmetry maps to each other share their weights.
///
/// Source: S. Lucas, "Learning to Play Othello with N-Tuple Systems", 2008.
class TupleNetwork final : public ValueModel {
 public:
  explicit TupleNetwork(const Rules& rules);

  Kind kind() const noexcept override { return Kind::kNetwork; }
  float value(const Position& position) const noexcept override;
  using ValueModel::learn;
  void learn(const Position& position, float target, float rate) override;
  std::vector<std::uint32_t> save() const override;
  bool load(const std::vector<std::uint32_t>& words) override;

 private:
  struct Tuple {
    std::vector<std::uint8_t> cells;
    std::size_t weights = 0;  // where its table begins
  };

  void add(const std::vector<std::uint8_t>& cells);
  template <class Use>
  void for_each_weight(const Position& position, Use use) const noexcept;

  std::vector<Tuple> tuples_;
  std::vector<float> weights_;
};

}  // namespace tandem::kxo::detail
