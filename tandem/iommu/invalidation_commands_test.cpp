// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

/// One page of each size that Sv48 has, and neighbours, in one address space of the host.
class Invalidations : public Board {
 protected:
  static constexpr std::uint64_t kSmall = 0x1000;
  static constexpr std::uint64_t kNeighbour = 0x8000;
  static constexpr std::uint64_t kFar = 0x4'0000'0000;

  explicit Invalidations(std::uint64_t capabilities = kHostCapabilities) : Board(capabilities) {
    start();
    map(root_, 3, kSmall, 0x91001);
    map(root_, 3, kNeighbour, 0x91008);
    map(root_, 3, kFar, 0x80000, kLeaf, 1);
  }
  bool legal(const Command& command) {
    submit({command});
    if (idle()) return true;
    write(reg::kCqcsr, 0);
    write(reg::kCqt, 0);
    write(reg::kCqcsr, Cqcsr::Cqen::kMask);
    return false;
  }
  bool cached(std::uint64_t at) {
    const auto before = iommu_->stats().iotlb_hits;
    EXPECT_TRUE(translate(at).has_value());
    return iommu_->stats().iotlb_hits != before;
  }
  /// Which of the pages are cached after `command`, all of them having been so before: "snf".
  std::string left(const Command& command) {
    for (const std::uint64_t at : {kSmall, kNeighbour, kFar}) EXPECT_TRUE(translate(at));
    EXPECT_TRUE(legal(command));
    return std::string(cached(kSmall) ? "s" : "") + (cached(kNeighbour) ? "n" : "") +
           (cached(kFar) ? "f" : "");
  }
  static Command non_leaf(Command command) {
    command.words[0] |= Iotinval::Nl::kMask;
    return command;
  }
  /// Of the naturally aligned range of 2^log2_pages pages at `address`.
  static Command range(Command command, std::uint64_t address, unsigned log2_pages) {
    const std::uint64_t ones = (std::uint64_t{1} << (log2_pages - 1)) - 1;
    command.words[1] =
        Iotinval::Addr::make((address >> kPageShift & ~(ones * 2 + 1)) | ones) | Iotinval::S::kMask;
    return command;
  }
};

class Extended : public Invalidations {
 protected:
  Extended() : Invalidations(kAllCapabilities) {}
};

// [iommu §4.1.1]
TEST_F(Invalidations, NameAnAddressAnAddressSpaceOrTheHost) {
  EXPECT_EQ(left(iotinval_vma(kSmall, kPscid)), "nf");
  EXPECT_EQ(left(iotinval_vma(kFar + 0x1f'f000, kPscid)), "sn");
  EXPECT_EQ(left(iotinval_vma(kSmall, kPscid + 1)), "snf");
  EXPECT_EQ(left(iotinval_vma(std::nullopt, kPscid)), "");
  EXPECT_EQ(left(iotinval_vma(std::nullopt, kPscid + 1)), "snf");
  EXPECT_EQ(left(iotinval_vma(kSmall, std::nullopt)), "");
  EXPECT_EQ(left(iotinval_vma(std::nullopt, std::nullopt)), "");
  EXPECT_EQ(left(iotinval_vma(std::nullopt, std::nullopt, 0)), "snf") << "a guest's";
  EXPECT_EQ(left(iotinval_gvma(std::nullopt)), "snf") << "all guests'";
}

// [iommu §4.1.3]
TEST_F(Invalidations, OfDirectoriesNameADeviceOrAProcess) {
  EXPECT_EQ(left(iodir_inval_pdt(kDevice.value, kPasid.value)), "");
  EXPECT_EQ(left(iodir_inval_pdt(kDevice.value, kPasid.value + 1)), "snf");
  EXPECT_EQ(left(iodir_inval_ddt(kDevice.value)), "");
  EXPECT_EQ(left(iodir_inval_ddt(kDevice.value + 1)), "snf");
  EXPECT_EQ(left(iodir_inval_ddt(std::nullopt)), "");
}

// [iommu §9.2] [iommu §9.3]
TEST_F(Invalidations, NonLeafAndRangeOperandsTakeTheirCapabilities) {
  EXPECT_FALSE(legal(non_leaf(iotinval_vma(kSmall, kPscid))));
  EXPECT_FALSE(legal(non_leaf(iotinval_gvma(std::nullopt))));
  EXPECT_FALSE(legal(range(iotinval_vma(kSmall, kPscid), kSmall, 1)));
}

// [iommu §9.2]
TEST_F(Extended, NonLeafEntriesOfAnAddressAreForgottenWithAllMadeFromThem) {
  EXPECT_EQ(left(non_leaf(iotinval_vma(kSmall, kPscid))), "");
  EXPECT_EQ(left(non_leaf(iotinval_vma(kSmall, std::nullopt))), "");
  EXPECT_EQ(left(non_leaf(iotinval_vma(kSmall, kPscid + 1))), "snf");
  EXPECT_EQ(left(non_leaf(iotinval_gvma(5))), "snf");
  EXPECT_FALSE(legal(Command{{non_leaf(iotinval_gvma(5)).words[0] | Iotinval::Pscv::kMask, 0}}));
}

// [iommu §9.3]
TEST_F(Extended, ARangeIsThatOfTheLowestClearBit) {
  const Command vma = iotinval_vma(0, kPscid);
  EXPECT_EQ(left(range(vma, kSmall, 1)), "nf");
  EXPECT_EQ(left(range(vma, kSmall, 3)), "nf") << "[0, 0x8000)";
  EXPECT_EQ(left(range(vma, kSmall, 4)), "f") << "[0, 0x10000)";
  EXPECT_EQ(left(range(vma, kNeighbour, 1)), "sf");
  EXPECT_EQ(left(range(vma, kFar, 2)), "sn") << "a part of a large page";
  EXPECT_EQ(left(range(vma, kFar + 0x10'0000, 5)), "sn");
  EXPECT_EQ(left(range(vma, 0x20'0000, 5)), "snf");
  EXPECT_EQ(left(range(vma, 0, 40)), "") << "larger than all of them";
  EXPECT_EQ(left(range(vma, 0, 52)), "") << "everything";
  EXPECT_EQ(left(range(iotinval_vma(0, kPscid + 1), 0, 52)), "snf");
  EXPECT_EQ(left(range(iotinval_vma(0, std::nullopt), kSmall, 1)), "");
}

// [iommu §9.3]
TEST_F(Extended, ARangeWithoutAnAddressIsIgnored) {
  EXPECT_EQ(left(range(iotinval_vma(std::nullopt, kPscid), kFar, 1)), "");
  EXPECT_EQ(left(range(iotinval_gvma(std::nullopt), kSmall, 1)), "snf");
}

}  // namespace
}  // namespace tandem::iommu::detail
