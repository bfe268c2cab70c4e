// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/value_model.hpp"

#include "tandem/kxo/detail/tuple_network.hpp"
#include "tandem/kxo/detail/value_table.hpp"

namespace tandem::kxo {

void ValueModel::learn(std::span<const Lesson> lessons, float rate) {
  for (const Lesson& lesson : lessons) learn(lesson.position, lesson.target, rate);
}

std::unique_ptr<ValueModel> ValueModel::make(const Rules& rules) {
  if (rules.cells() <= detail::ValueTable::kMostCells) {
    return std::make_unique<detail::ValueTable>(rules);
  }
  return std::make_unique<detail::TupleNetwork>(rules);
}

}  // namespace tandem::kxo
