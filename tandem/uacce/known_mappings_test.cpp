// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/known_mappings.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace tandem::uacce::detail {
namespace {

constexpr std::uint64_t kPage = 4096;

Vma mapping(std::uint64_t first_page, std::uint64_t pages, bool writable = true) {
  Vma vma;
  vma.start = first_page * kPage;
  vma.end = (first_page + pages) * kPage;
  vma.readable = true;
  vma.writable = writable;
  return vma;
}

class KnownMappingsTest : public testing::Test {
 protected:
  /// The first page of the mapping known at `page`; none where nothing is known.
  std::uint64_t found(std::uint64_t page, bool write = false, std::uint64_t refusals = 0) {
    const Vma* const vma = known_.find(page * kPage + 7, !write, write, refusals);
    return vma == nullptr ? kNone : vma->start / kPage;
  }
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  KnownMappings known_;
};

TEST_F(KnownMappingsTest, OneIsFoundByEachOfItsPagesAndByNoOther) {
  EXPECT_EQ(found(0), kNone);
  known_.remember(mapping(10, 4), 0);
  EXPECT_EQ(found(9), kNone);
  EXPECT_EQ(found(10), 10u);
  EXPECT_EQ(found(13), 10u);
  EXPECT_EQ(found(14), kNone);
}

TEST_F(KnownMappingsTest, WhatOneDoesNotAllowIsAskedForAgain) {
  known_.remember(mapping(10, 4, /*writable=*/false), 0);
  EXPECT_EQ(found(10), 10u);
  EXPECT_EQ(found(10, /*write=*/true), kNone);
  known_.remember(mapping(11, 1), 0);
  EXPECT_EQ(found(11, /*write=*/true), 11u);
  EXPECT_EQ(found(10), kNone) << "the one it was a part of is out of date";
}

TEST_F(KnownMappingsTest, ARefusedAccessVoidsThemAll) {
  known_.remember(mapping(10, 4), 0);
  known_.remember(mapping(20, 4), 0);
  EXPECT_EQ(found(20, false, /*refusals=*/1), kNone);
  EXPECT_EQ(found(10, false, /*refusals=*/1), kNone);
}

TEST_F(KnownMappingsTest, WhatWasAskedForBeforeARefusalIsNotRemembered) {
  EXPECT_EQ(found(10, false, /*refusals=*/1), kNone);
  known_.remember(mapping(10, 4), 0);
  EXPECT_EQ(found(10, false, /*refusals=*/1), kNone);
  known_.remember(mapping(10, 4), 1);
  EXPECT_EQ(found(10, false, /*refusals=*/1), 10u);
}

TEST_F(KnownMappingsTest, TheOldestMakesRoom) {
  for (std::uint64_t i = 0; i < 5; ++i) known_.remember(mapping(10 * i, 1), 0);
  EXPECT_EQ(found(0), kNone);
  for (std::uint64_t i = 1; i < 5; ++i) EXPECT_EQ(found(10 * i), 10 * i);
}

}  // namespace
}  // namespace tandem::uacce::detail
