// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>

#include "tandem/abi/control.h"
#include "tandem/abi/kxo.h"
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

TEST(Kxo, DeviceAndClientDoNotShareACacheLine) {
  EXPECT_EQ(offsetof(tandem_kxo_ring, taken), 64u);
  EXPECT_EQ(tandem_kxo_ring_size(64), 384u);
}

TEST(Kxo, TheLowByteOfAMoveIsTheOriginals) {
  EXPECT_EQ(tandem_kxo_make_move(15, TANDEM_KXO_MOVE_X | TANDEM_KXO_MOVE_OVER, 0), 0x3Fu);
  EXPECT_EQ(tandem_kxo_make_move(3, TANDEM_KXO_MOVE_OVER | TANDEM_KXO_MOVE_DRAW, 0), 0x63u);
  for (std::uint32_t cell = 0; cell < 64; ++cell) {
    for (const std::uint32_t flags : {0u, TANDEM_KXO_MOVE_X, TANDEM_KXO_MOVE_OVER}) {
      const std::uint32_t move = tandem_kxo_make_move(cell, flags, 0x3FFFFF);
      EXPECT_EQ(tandem_kxo_move_cell(move), cell);
      EXPECT_EQ(move & 0x70, flags);
      EXPECT_EQ(move >> TANDEM_KXO_MOVE_NUMBER_SHIFT, 0x3FFFFFu);
    }
  }
}

}  // namespace
