// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "apps/broker_process/broker_process.hpp"

/// Runs the suite with a private broker for the broker's paths.
int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto broker = tandem::broker::BrokerProcess::start({}).value();
  return RUN_ALL_TESTS();
}
