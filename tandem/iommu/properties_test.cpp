// SPDX-License-Identifier: Apache-2.0
// Properties of translation and invalidation, over what RapidCheck makes up. (RC_PARAMS=seed=…
// repeats a run.)
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

/// A process with an Sv48 table. Quarter q of the low 2 TiB holds leaves of level q only, so that
/// tables and leaves do not meet.
class Properties : public Board {
 protected:
  static constexpr std::uint64_t kRegionBytes = std::uint64_t{1} << 39;

  /// A leaf as the model remembers it.
  struct Leaf {
    std::uint64_t ppn = 0;
    std::uint64_t flags = 0;
  };
  struct Page {
    unsigned level = 0;
    std::uint64_t number = 0;  // of pages of its size, from the region's beginning
    friend auto operator<=>(const Page&, const Page&) = default;

    std::uint64_t size_bytes() const { return std::uint64_t{1} << (12 + 9 * level); }
    std::uint64_t first() const { return level * kRegionBytes + number * size_bytes(); }
  };

  Properties() : Board(kAllCapabilities) {
    enable_queues();
    set_ddtp(Ddtp::ModeValue::k1Lvl);
    pdt_root_ = allocate_page();
    tables_ = ram_;
    root_ = allocate_page();
    using Tc = DeviceContext::Tc;
    context_.tc = Tc::V::make(1) | Tc::EnAts::make(1) | Tc::Pdtv::make(1);
    context_.fsc = Fsc::make(PdtpMode::kPd8, pdt_root_);
    set_device(kDevice, context_);
    set_process(PdtpMode::kPd8, pdt_root_, kPasid,
                process_context(FirstStageMode::kSv48, root_, ProcessContext::Ta::Ens::make(1)));
    write(reg::kFqcsr, 0);
  }

  static Page any_page() {
    const unsigned level = *rc::gen::inRange(0U, 4U);
    // Neighbours, and pages under another table; a quarter has one of 512 GiB.
    const std::uint64_t low = *rc::gen::inRange<std::uint64_t>(0, 4);
    const std::uint64_t far = *rc::gen::inRange<std::uint64_t>(0, 2);
    return {level, level == 3 ? 0 : level == 2 ? low : low | far << 9};
  }
  static Leaf any_leaf(const Page& page) {
    const std::uint64_t mask = page.size_bytes() / kPageBytes - 1;
    Leaf leaf;
    leaf.ppn = *rc::gen::inRange<std::uint64_t>(0, std::uint64_t{1} << 44) & ~mask;
    if (*rc::gen::inRange(0, 8) == 0) leaf.ppn |= *rc::gen::inRange<std::uint64_t>(0, mask + 1);
    leaf.flags = *rc::gen::weightedElement<std::uint64_t>({{4, kLeaf},
                                                           {2, kLeaf & ~Pte::U::kMask},
                                                           {2, kLeaf & ~Pte::W::kMask},
                                                           {1, kLeaf & ~Pte::D::kMask},
                                                           {1, kLeaf & ~Pte::A::kMask},
                                                           {1, kLeaf & ~Pte::R::kMask},
                                                           {1, kLeaf | Pte::X::kMask},
                                                           {1, 0}});
    return leaf;
  }
  void set(const Page& page, const Leaf& leaf) {
    map(root_, 4, page.first(), leaf.ppn, leaf.flags, page.level);
    leaves_[page] = leaf;
  }

  /// What the Privileged specification says of an address, without tables.
  std::optional<std::uint64_t> expected(const Page& page, std::uint64_t offset, Access access,
                                        bool privileged) const {
    const auto found = leaves_.find(page);
    if (found == leaves_.end()) return std::nullopt;
    const auto [ppn, flags] = found->second;
    const auto has = [&, held = flags](std::uint64_t bit) { return (held & bit) != 0; };
    if (!has(Pte::V::kMask) || (has(Pte::W::kMask) && !has(Pte::R::kMask))) return std::nullopt;
    if (has(Pte::U::kMask) == privileged) return std::nullopt;  // SUM is 0
    const std::uint64_t needed = access == Access::kRead    ? Pte::R::kMask
                                 : access == Access::kWrite ? Pte::W::kMask
                                                            : Pte::X::kMask;
    if (!has(needed) || !has(Pte::A::kMask)) return std::nullopt;
    if (access == Access::kWrite && !has(Pte::D::kMask)) return std::nullopt;
    if (ppn % (page.size_bytes() / kPageBytes) != 0) return std::nullopt;
    return (ppn << kPageShift) + offset;
  }
  void check_one() {
    const Page page = any_page();
    const std::uint64_t offset = *rc::gen::inRange<std::uint64_t>(0, page.size_bytes());
    const auto access = *rc::gen::element(Access::kRead, Access::kWrite, Access::kExecute);
    const bool privileged = *rc::gen::inRange(0, 4) == 0;
    const auto found = port_->translate({kPasid, privileged}, Iova{page.first() + offset}, access);
    const auto wanted = expected(page, offset, access, privileged);
    RC_ASSERT(found.has_value() == wanted.has_value());
    if (!found) {
      RC_ASSERT(found.error() == (access == Access::kRead    ? Cause::kReadPageFault
                                  : access == Access::kWrite ? Cause::kWritePageFault
                                                             : Cause::kInstructionPageFault));
      return;
    }
    RC_ASSERT(found->address.value == *wanted);
    RC_ASSERT(found->log2_size == 12 + 9 * page.level);
  }

  /// One of the commands that void a translation of `page`.
  void invalidate(const Page& page) {
    const std::uint64_t at = page.first() + *rc::gen::inRange<std::uint64_t>(0, page.size_bytes());
    const auto pscid = *rc::gen::inRange(0, 2) == 0 ? std::nullopt : std::optional{kPscid};
    Command command = iotinval_vma(at, pscid);
    switch (*rc::gen::inRange(0, 5)) {
      case 0:
        command = iotinval_vma(std::nullopt, pscid);
        break;
      case 1:
        command.words[0] |= Iotinval::Nl::kMask;
        break;
      case 2: {  // a naturally aligned range of 2^n pages: n - 1 ones below a 0
        const unsigned log2_pages = *rc::gen::inRange(1U, 30U);
        const std::uint64_t ones = (std::uint64_t{1} << (log2_pages - 1)) - 1;
        const std::uint64_t number = (at >> kPageShift & ~(ones * 2 + 1)) | ones;
        command.words[1] = Iotinval::S::kMask | Iotinval::Addr::make(number);
        break;
      }
      case 3:
        command = iodir_inval_pdt(kDevice.value, kPasid.value);
        break;
      default:
        break;
    }
    submit({command});
    RC_ASSERT(idle());
  }

  void TearDown() override { EXPECT_EQ(read(reg::kFqcsr), 0U); }

  std::map<Page, Leaf> leaves_;
  std::uint64_t tables_ = 0;  // where they begin in RAM
};

// [iommu §3.3]
TEST_F(Properties, ATranslationIsWhatThePageSays) {
  EXPECT_TRUE(rc::check("a fresh walk", [this] {
    // A table of its own, where that of the case before was.
    leaves_.clear();
    std::ranges::fill(host_.bytes().subspan(tables_ - kRamBase, ram_ - tables_), std::byte{0});
    ram_ = tables_;
    root_ = allocate_page();
    set_process(PdtpMode::kPd8, pdt_root_, kPasid,
                process_context(FirstStageMode::kSv48, root_, ProcessContext::Ta::Ens::make(1)));
    forget_contexts();
    const int pages = *rc::gen::inRange(1, 12);
    for (int i = 0; i < pages; ++i) {
      const Page page = any_page();
      set(page, any_leaf(page));
    }
    for (int i = 0; i < 20; ++i) check_one();
  }));
}

// [iommu §3.8] [iommu §4.1.1] [iommu §9.2] [iommu §9.3]
TEST_F(Properties, NothingStaleIsLeftByAnInvalidation) {
  EXPECT_TRUE(rc::check("changes, each with its invalidation", [this] {
    for (int i = 0; i < 12; ++i) {
      const Page page = any_page();
      set(page, any_leaf(page));
      invalidate(page);
      for (int request = 0; request < 4; ++request) check_one();
    }
  }));
}

// [iommu §4.1.4]
TEST_F(Properties, ADeviceIsToldTheRangeThatThePayloadCodes) {
  EXPECT_TRUE(rc::check("NAPOT ranges", [this] {
    const unsigned log2_size = *rc::gen::inRange(12U, 64U);
    const std::uint64_t size = std::uint64_t{1} << log2_size;
    const std::uint64_t at = *rc::gen::arbitrary<std::uint64_t>() & ~(size - 1);
    Command command = ats_inval(kDevice.value, kPasid.value, 0, kPageBytes);
    // S, and as many ones from bit 12 on as double a page to the size, below a 0.
    command.words[1] &= ~(Ats::InvalPayload::Address::kMask | Ats::InvalPayload::S::kMask);
    command.words[1] |= at;
    if (size > kPageBytes) {
      command.words[1] |= Ats::InvalPayload::S::kMask | ((size / 2 - 1) & ~(kPageBytes - 1));
    }
    submit({command});
    RC_ASSERT(idle());
    const auto sent = device_.take_invalidations();
    RC_ASSERT(sent.size() == 1U);
    RC_ASSERT(sent[0].address.value == at);
    RC_ASSERT(sent[0].size_bytes == size);
  }));
}

}  // namespace
}  // namespace tandem::iommu::detail
