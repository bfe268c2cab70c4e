// SPDX-License-Identifier: Apache-2.0
/// What the specification's reference model answered, asked again of tandem::iommu.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/iommu_golden/coverage.hpp"
#include "tests/iommu_golden/replay.hpp"

namespace tandem::iommu::golden {
namespace {

std::vector<std::string> files() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(TANDEM_GOLDEN_VECTORS)) {
    paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

class GoldenVectors : public testing::TestWithParam<std::string> {};

TEST_P(GoldenVectors, AreWhatTheIommuAnswers) {
  Replay replay;
  visit(GetParam(), replay);
  EXPECT_THAT(replay.differences(), testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(All, GoldenVectors, testing::ValuesIn(files()), [](const auto& file) {
  return std::filesystem::path(file.param).stem().string();
});

TEST(GoldenVectorsTogether, ReachEveryCauseFeatureAndMode) {
  Coverage coverage;
  for (const std::string& path : files()) visit(path, coverage);
  const std::set<std::string> expected = Coverage::expected();
  std::vector<std::string> missing;
  std::set_difference(expected.begin(), expected.end(), coverage.reached().begin(),
                      coverage.reached().end(), std::back_inserter(missing));
  EXPECT_THAT(missing, testing::IsEmpty());
  EXPECT_GE(coverage.worlds(), 500U);
  EXPECT_GE(coverage.requests(), 200'000U);
  EXPECT_GE(coverage.checkpoints(), 4'000U);
  RecordProperty("worlds", std::to_string(coverage.worlds()));
  RecordProperty("requests", std::to_string(coverage.requests()));
}

}  // namespace
}  // namespace tandem::iommu::golden
