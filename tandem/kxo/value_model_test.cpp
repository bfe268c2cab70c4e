// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/value_model.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <set>
#include <vector>

#include "tandem/kxo/detail/symmetry.hpp"
#include "tandem/kxo/detail/test_agents.hpp"

namespace tandem::kxo {
namespace {

Cells moved(Cells cells, const std::array<std::uint8_t, Rules::kMostCells>& map) {
  Cells image = 0;
  for (; cells != 0; cells &= cells - 1) {
    image |= cell_bit(map.at(static_cast<std::size_t>(std::countr_zero(cells))));
  }
  return image;
}

TEST(SymmetryTest, ImagesOfRowsAreRows) {
  for (const auto& [width, height, goal] : {std::array{4, 4, 3}, {5, 3, 3}, {8, 8, 5}, {7, 1, 2}}) {
    const Rules rules = *Rules::make(width, height, goal);
    const auto maps = detail::symmetries(rules);
    EXPECT_EQ(maps.size(), width == height ? 8U : 4U);
    Random random({1, 1});
    for (int i = 0; i < 200; ++i) {
      const Cells cells = random() & random() & rules.all();
      for (const auto& map : maps) {
        EXPECT_EQ(rules.has_row(cells), rules.has_row(moved(cells, map)));
      }
    }
  }
}

// 630 of the positions of three by three that can be reached are different up to symmetry.
TEST(SymmetryTest, OneIndexForAllImagesAndForNoOtherPosition) {
  const Rules rules = *Rules::make(3, 3, 3);
  const detail::CanonicalIndex canonical(rules);
  std::set<std::uint32_t> indices;
  for (Cells o = 0; o <= rules.all(); ++o) {
    for (Cells x = 0; x <= rules.all(); ++x) {
      const int ahead = std::popcount(o) - std::popcount(x);
      if ((o & x) != 0 || ahead < 0 || ahead > 1) continue;
      const std::uint32_t index = canonical.of({o, x});
      for (const auto& map : detail::symmetries(rules)) {
        ASSERT_EQ(index, canonical.of({moved(o, map), moved(x, map)}));
      }
      if (!rules.has_row(o) && !rules.has_row(x)) indices.insert(index);
    }
  }
  EXPECT_EQ(indices.size(), 630U);
}

TEST(ValueModelTest, KnowsNothingAtFirstAndWhatItLearnedOfAllImages) {
  for (const Rules& rules : {Rules::standard(), *Rules::make(5, 4, 3), *Rules::make(8, 8, 5)}) {
    const auto model = ValueModel::make(rules);
    EXPECT_EQ(model->kind(),
              rules.cells() <= 16 ? ValueModel::Kind::kTable : ValueModel::Kind::kNetwork);
    const Position position = detail::after(0, 1, 9);
    EXPECT_EQ(model->value(position), 0);
    for (int i = 0; i < 50; ++i) model->learn(position, 0.5F, 0.2F);
    EXPECT_NEAR(model->value(position), 0.5F, 0.01F);
    for (const auto& map : detail::symmetries(rules)) {
      EXPECT_NEAR(model->value({moved(position.o, map), moved(position.x, map)}), 0.5F, 0.01F);
    }
  }
}

TEST(ValueModelTest, ATableKeepsPositionsApart) {
  const auto model = ValueModel::make(Rules::standard());
  Random random({3, 3});
  std::vector<Position> positions;
  for (int i = 0; i < 20'000; ++i) {
    Position position{random() & 0xffff, 0};
    position.x = random() & 0xffff & ~position.o;
    positions.push_back(position);
  }
  const detail::CanonicalIndex canonical(Rules::standard());
  const auto value = [&](const Position& position) {
    return static_cast<float>(canonical.of(position) % 1000) / 1000;
  };
  for (const Position& position : positions) model->learn(position, value(position), 1);
  for (const Position& position : positions) ASSERT_EQ(model->value(position), value(position));
  std::set<std::uint32_t> indices, listed;
  for (const Position& position : positions) indices.insert(canonical.of(position));
  for (const Position& position : model->positions()) {
    ASSERT_TRUE(listed.insert(canonical.of(position)).second);
    ASSERT_EQ(model->value(position), value(position));
  }
  EXPECT_EQ(listed, indices);
  // The same table is the same file: pairs in the order of the indices.
  const std::vector<std::uint32_t> words = model->save();
  ASSERT_EQ(words.size(), 2 * indices.size());
  std::size_t at = 0;
  for (const std::uint32_t index : indices) ASSERT_EQ(words[2 * at++], index);
  const auto copy = ValueModel::make(Rules::standard());
  ASSERT_TRUE(copy->load(words));
  for (const Position& position : positions) ASSERT_EQ(copy->value(position), value(position));
}

TEST(ValueModelTest, ManyLessonsAtOnceTeachWhatTheyDoOneByOne) {
  for (const Rules& rules : {Rules::standard(), *Rules::make(5, 4, 3)}) {
    const auto model = ValueModel::make(rules);
    Random random({4, 4});
    std::vector<Lesson> lessons;
    for (int i = 0; i < 3'000; ++i) {
      Position position{random() & random() & rules.all(), 0};
      position.x = random() & random() & rules.all() & ~position.o;
      if (i % 3 == 2) position = lessons.back().position;  // twice in a row
      lessons.push_back(model->lesson(position, static_cast<float>(random.unit())));
    }
    for (const std::size_t count : {0U, 1U, 31U, 32U, 33U, 3'000U}) {
      const auto one = ValueModel::make(rules), many = ValueModel::make(rules);
      const std::span<const Lesson> some = std::span(lessons).first(count);
      for (const Lesson& lesson : some) one->learn(lesson.position, lesson.target, 0.3F);
      many->learn(some, 0.3F);
      EXPECT_EQ(many->save(), one->save()) << count;
    }
  }
}

TEST(ValueModelTest, TakesOnlyNumbersThatAreAModel) {
  const auto table = ValueModel::make(Rules::standard());
  const std::uint32_t half = std::bit_cast<std::uint32_t>(0.5F);
  EXPECT_TRUE(table->load({}));
  EXPECT_TRUE(table->load({1, half, 2, half}));
  EXPECT_FALSE(table->load({1, half, 2}));
  EXPECT_FALSE(table->load({1, half, 1, half}));
  EXPECT_FALSE(table->load({43'046'721, half}));
  EXPECT_FALSE(table->load({1, std::bit_cast<std::uint32_t>(1.5F)}));
  EXPECT_FALSE(table->load({1, 0x7fc00000}));
  const auto network = ValueModel::make(*Rules::make(5, 5, 4));
  auto words = network->save();
  EXPECT_TRUE(network->load(words));
  words.back() = 0x7fc00000;
  EXPECT_FALSE(network->load(words));
  words.pop_back();
  EXPECT_FALSE(network->load(words));
}

}  // namespace
}  // namespace tandem::kxo
