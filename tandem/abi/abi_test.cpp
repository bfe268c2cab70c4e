// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstddef>

#include "tandem/abi/control.h"
#include "tandem/abi/ring.h"

namespace {

TEST(Ring, TheWordThatCarriesThePhaseIsTheLastEightBytes) {
  EXPECT_EQ(offsetof(tandem_completion, done), 24u);
  EXPECT_EQ(offsetof(tandem_completion, flags), 30u);
}

TEST(Ring, WritersDoNotShareACacheLine) {
  EXPECT_EQ(offsetof(tandem_doorbell, waiting), 64u);
  EXPECT_EQ(offsetof(tandem_doorbell, parked), 128u);
}

TEST(Control, MessagesHaveNoHiddenPadding) {
  EXPECT_EQ(sizeof(tandem_message_header), 16u);
  EXPECT_EQ(sizeof(tandem_hello), 40u);
  EXPECT_EQ(sizeof(tandem_open), 40u);
  EXPECT_EQ(sizeof(tandem_devices_reply), 2u * 32 + 384 + 6 * 4 + 4 * 8);
}

}  // namespace
