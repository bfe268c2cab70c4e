// SPDX-License-Identifier: Apache-2.0
// What an IOMMU does not do when its capabilities say less.
#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

/// A board whose IOMMU offers everything but `Missing`.
template <class... Missing>
class Without : public Board {
 protected:
  Without() : Board(kAllCapabilities & ~(std::uint64_t{0} | ... | Missing::kMask)) {
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k3Lvl);
  }
};

using WithoutAts = Without<Capabilities::Ats, Capabilities::T2gpa>;
using WithPd20 = Without<>;
using WithoutPd20 = Without<Capabilities::Pd20>;
using OnlyPd8 = Without<Capabilities::Pd17, Capabilities::Pd20>;

// [iommu §6.1]
TEST_F(WithoutAts, ThereIsNoPageRequestQueue) {
  for (const auto offset : {reg::kPqb, reg::kPqb + 4, reg::kPqh, reg::kPqt, reg::kPqcsr}) {
    write(offset, ~std::uint64_t{0});
    EXPECT_EQ(read(offset), 0U) << offset;
  }
  write(reg::kPqb, ~std::uint64_t{0}, 8);
  EXPECT_EQ(read(reg::kPqb, 8), 0U);
}

// [iommu §4.1.4]
TEST_F(WithoutAts, ItsInvalidationIsIllegal) {
  EXPECT_TRUE(illegal(ats_inval(kDevice.value, std::nullopt, 0, kPageBytes)));
  EXPECT_TRUE(device_.take_invalidations().empty());
}

// [iommu §4.1.4]
TEST_F(WithoutAts, ItsPageResponseIsIllegal) {
  EXPECT_TRUE(illegal(ats_prgr(kDevice.value, std::nullopt, 0, 0)));
  EXPECT_TRUE(device_.take_responses().empty());
}

// [iommu §4.1.3]
TEST_F(WithPd20, AProcessIdHas20Bits) {
  EXPECT_FALSE(illegal(iodir_inval_pdt(kDevice.value, 0xf'ffff)));
}

// [iommu §4.1.3]
TEST_F(WithoutPd20, AProcessIdHas17Bits) {
  EXPECT_FALSE(illegal(iodir_inval_pdt(kDevice.value, 0x1'ffff)));
  EXPECT_TRUE(illegal(iodir_inval_pdt(kDevice.value, 0x2'0000)));
}

// [iommu §4.1.3]
TEST_F(OnlyPd8, AProcessIdHas8Bits) {
  EXPECT_FALSE(illegal(iodir_inval_pdt(kDevice.value, 0xff)));
  EXPECT_TRUE(illegal(iodir_inval_pdt(kDevice.value, 0x100)));
}

}  // namespace
}  // namespace tandem::iommu::detail
