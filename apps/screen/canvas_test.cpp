// SPDX-License-Identifier: Apache-2.0
#include "apps/screen/canvas.hpp"

#include <gtest/gtest.h>

namespace tandem::screen {
namespace {

TEST(Canvas, WhatLiesOutsideIsCutOff) {
  Canvas canvas({2, 5});
  canvas.put(0, 3, "abc");
  canvas.put(1, -2, "xyz");
  canvas.put(2, 0, "below");
  canvas.put(-1, 0, "above");
  EXPECT_EQ(canvas.text(), "   ab\nz\n");
}

TEST(Canvas, LaterTextCoversEarlierWithItsStyle) {
  Canvas canvas({1, 4});
  canvas.put(0, 0, "aaaa", kBold);
  canvas.put(0, 1, "bb", kReversed | kInkO);
  EXPECT_EQ(canvas.line(0), "abba");
  EXPECT_EQ(canvas.at(0, 0).style, kBold);
  EXPECT_EQ(canvas.at(0, 2).style, kReversed | kInkO);
}

TEST(Canvas, CharactersThatATerminalWouldObeyAreNotPut) {
  Canvas canvas({1, 8});
  canvas.put(0, 0, "a\033[2Jb\xC3");
  EXPECT_EQ(canvas.line(0), "a?[2Jb?");
}

TEST(Canvas, WhatComesLastStaysWhereThereIsLittleRoom) {
  const std::vector<std::string> parts = {"a", "bb", "ccc"};
  EXPECT_EQ(last_that_fit(parts, 10), "a  bb  ccc");
  EXPECT_EQ(last_that_fit(parts, 9), "bb  ccc");
  EXPECT_EQ(last_that_fit(parts, 3), "ccc");
  EXPECT_EQ(last_that_fit(parts, 2), "");
  EXPECT_EQ(last_that_fit({}, 80), "");
}

TEST(Canvas, MayHaveNoRoom) {
  Canvas canvas({-1, 0});
  canvas.put(0, 0, "text");
  EXPECT_EQ(canvas.text(), "");
}

}  // namespace
}  // namespace tandem::screen
