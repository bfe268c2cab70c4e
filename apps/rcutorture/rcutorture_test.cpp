// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "torture.hpp"

namespace tandem::rcutorture {
namespace {

class RcuTorture : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(, RcuTorture, ::testing::ValuesIn(domain_names()),
                         [](const auto& parameter) {
                           std::string name = parameter.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(RcuTorture, EverythingAtOnce) {
  Options options;
  options.domain = GetParam();
  options.seconds = GetParam() == "rcu" ? 2 : 0.5;
  EXPECT_TRUE(torture(options, stdout)) << "seed " << options.seed;
}

}  // namespace
}  // namespace tandem::rcutorture
