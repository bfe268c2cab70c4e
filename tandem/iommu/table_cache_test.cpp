// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/table_cache.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "tandem/iommu/detail/test_board.hpp"

namespace tandem::iommu::detail {
namespace {

constexpr DeviceId kDevice{3};
constexpr Pasid kPasid{9};
constexpr std::uint32_t kPscid = 1234;
constexpr Iova kAt{0x7f12'3456'7678};
constexpr std::uint64_t kRegionBytes = std::uint64_t{1} << TableCache::kLog2Region;

class TableCacheTest : public ::testing::Test {
 protected:
  static IotlbContext context(DeviceId device = kDevice, Pasid pasid = kPasid) {
    return IotlbContext::untranslated(device, {pasid, false});
  }
  struct Entry : CachedTable {
    FirstStage stage;
  };
  static Entry table(Scheme scheme, std::optional<std::uint32_t> gscid = std::nullopt) {
    Entry made;
    made.table.page.value = 0x12'3456'7000;
    made.stage.scheme = scheme;
    made.stage.pscid = kPscid;
    made.gscid = gscid;
    return made;
  }
  void fill(const Entry& made) {
    Generations::Snapshot snapshot(generations_, kDevice, kPasid.value);
    snapshot.add_domain(made.gscid);
    snapshot.add_space({made.gscid, made.stage.pscid}, kAt);
    tables_.fill(context(), kAt, made, made.stage,
                 snapshot.of_translation(TableCache::kLog2Region));
  }
  bool finds(Iova at, IotlbContext of = context()) {
    found_ = {};
    return tables_.find(of, at, found_, found_.stage, snapshot_);
  }
  Generations generations_;
  TableCache tables_;
  Entry found_;
  Generations::LeafSnapshot snapshot_{generations_};
};

// [iommu §3.8]
TEST_F(TableCacheTest, ATableComesBackAsItWas) {
  Scheme big_endian{5, 0};
  big_endian.big_endian = true;
  for (const Scheme& scheme : {Scheme{3, 0}, Scheme{4, 0}, big_endian, kSv32}) {
    for (unsigned flags = 0; flags < 16; ++flags) {
      Entry made = table(scheme);
      made.table.page.value = (std::uint64_t{1} << 56) - (kPageBytes << flags);
      made.table.global = (flags & 1) != 0;
      made.stage.sum = (flags & 2) != 0;
      made.default_process = (flags & 4) != 0;
      if ((flags & 8) != 0) made.gscid = 0xffff - flags;
      made.stage.pscid = (1U << kPasidBits) - 1 - flags;
      fill(made);
      ASSERT_TRUE(finds(kAt));
      EXPECT_EQ(found_.table.page, made.table.page);
      EXPECT_EQ(found_.table.global, made.table.global);
      EXPECT_EQ(found_.stage.scheme.levels, scheme.levels);
      EXPECT_EQ(found_.stage.scheme.widened, 0);
      EXPECT_EQ(found_.stage.scheme.index_bits, scheme.index_bits);
      EXPECT_EQ(found_.stage.scheme.big_endian, scheme.big_endian);
      EXPECT_EQ(found_.stage.sum, made.stage.sum);
      EXPECT_EQ(found_.stage.pscid, made.stage.pscid);
      EXPECT_EQ(found_.gscid, made.gscid);
      EXPECT_EQ(found_.default_process, made.default_process);
    }
  }
}

// [iommu §3.8]
TEST_F(TableCacheTest, ATableIsThatOfItsContextAndItsTwoMegabytes) {
  EXPECT_FALSE(finds(kAt)) << "nothing yet";
  fill(table({4, 0}));
  EXPECT_TRUE(finds(kAt));
  EXPECT_TRUE(finds(Iova{kAt.value & ~(kRegionBytes - 1)}));
  EXPECT_TRUE(finds(Iova{kAt.value | (kRegionBytes - 1)}));
  for (unsigned bit = TableCache::kLog2Region; bit < 64; ++bit) {
    EXPECT_FALSE(finds(Iova{kAt.value ^ std::uint64_t{1} << bit})) << bit;
  }
  const Requester requester{kPasid, false};
  EXPECT_FALSE(finds(kAt, IotlbContext::translation_request(kDevice, requester)));
  EXPECT_FALSE(finds(kAt, IotlbContext::untranslated(kDevice, {kPasid, true})));
  EXPECT_FALSE(finds(kAt, IotlbContext::untranslated(kDevice, {std::nullopt, false})));
  for (std::uint32_t bit = 0; bit < 24; ++bit) {
    EXPECT_FALSE(finds(kAt, context(DeviceId{kDevice.value ^ 1U << bit})));
    if (bit < kPasidBits) {
      EXPECT_FALSE(finds(kAt, context(kDevice, Pasid{kPasid.value ^ 1U << bit})));
    }
  }
}

// [iommu §3.8] [iommu §4.1.1] [iommu §4.1.3]
TEST_F(TableCacheTest, EveryInvalidationThatNamesAnAddressBehindItTakesATable) {
  for (const std::optional<std::uint32_t> gscid : {std::optional<std::uint32_t>{}, {5}}) {
    const AddressSpaceId space{gscid, kPscid};
    const std::function<void()> taking[] = {
        [&] { generations_.invalidate_all(); },
        [&] { generations_.invalidate_device(kDevice); },
        [&] { generations_.invalidate_process(kDevice, kPasid.value); },
        [&] { generations_.invalidate_domain(gscid); },
        [&] { generations_.invalidate_address_space(space); },
        [&] { generations_.invalidate_range(space, kAt, 12); },
        [&] { generations_.invalidate_range(space, Iova{kAt.value ^ 0x10'0000}, 12); },
        [&] { generations_.invalidate_range(space, Iova{kAt.value ^ 0x10'0000}, 17); },
        [&] { generations_.invalidate_range(space, Iova{kAt.value ^ kRegionBytes}, 22); },
    };
    for (std::size_t i = 0; i < std::size(taking); ++i) {
      fill(table({4, 0}, gscid));
      ASSERT_TRUE(finds(kAt));
      taking[i]();
      EXPECT_FALSE(finds(kAt)) << i;
      EXPECT_FALSE(snapshot_.table_holds()) << i;
    }
    const std::function<void()> leaving[] = {
        [&] { generations_.invalidate_device({kDevice.value + 1}); },
        [&] { generations_.invalidate_process(kDevice, kPasid.value + 1); },
        [&] { generations_.invalidate_domain(gscid.value_or(5) + 1); },
        [&] {
          generations_.invalidate_address_space({gscid, kPscid + 1});
        },
        [&] { generations_.invalidate_range(space, Iova{kAt.value ^ kRegionBytes}, 12); },
        [&] {
          generations_.invalidate_range({gscid, kPscid + 1}, kAt, 12);
        },
    };
    fill(table({4, 0}, gscid));
    for (std::size_t i = 0; i < std::size(leaving); ++i) {
      leaving[i]();
      EXPECT_TRUE(finds(kAt)) << i;
      EXPECT_TRUE(snapshot_.table_holds()) << i;
    }
  }
}

/// Through the port of a device. There are two tables for the same two megabytes of its process,
/// which map other frames.
class LastTables : public Board {
 protected:
  static constexpr std::uint64_t kBase = 0x12'3460'0000;
  static constexpr unsigned kOtherFrames = 0x800;

  explicit LastTables(std::uint64_t capabilities = kAllCapabilities) : Board(capabilities) {}

  void start_tables(std::uint64_t more_tc = 0) {
    start(more_tc);
    pointer_ = pte_slot(root_, 3, kBase, 1);
    main_ = allocate_page();
    other_ = allocate_page();
    for (std::uint64_t i = 0; i < 512; ++i) {
      set_leaf(main_, i, kLeaf | Pte::Ppn::make(kFrames + i));
      set_leaf(other_, i, kLeaf | Pte::Ppn::make(kFrames + kOtherFrames + i));
    }
    point_at(main_);
    write(reg::kIohpmevt1, Iohpmevt::EventId::make(7), 8);
  }
  void set_leaf(std::uint64_t table, std::uint64_t index, std::uint64_t pte) {
    store((table << kPageShift) + index * 8, pte);
  }
  void point_at(std::uint64_t table) { store(pointer_, Pte::make_pointer(table)); }
  /// A page of the two megabytes that has not been asked for.
  std::uint64_t fresh() { return kBase + fresh_++ * kPageBytes; }
  Result<Translation, Cause> translate_fresh() { return translate(fresh()); }
  /// The table through which a page that no other request named is translated.
  std::uint64_t used() {
    const auto found = translate_fresh();
    EXPECT_TRUE(found.has_value());
    if (!found) return 0;
    return ((found->address.value >> kPageShift) - kFrames) >= kOtherFrames ? other_ : main_;
  }
  std::uint64_t first_stage_loads() { return read(reg::kIohpmctr1, 8); }

  static constexpr std::uint64_t kFrames = 0x9'0000;
  std::uint64_t pointer_ = 0;
  std::uint64_t main_ = 0;
  std::uint64_t other_ = 0;
  std::uint64_t fresh_ = 0;
};

// [iommu §3.8] [iommu §6.23]
TEST_F(LastTables, OfACachedOneTheLeafAloneIsLoaded) {
  start_tables();
  EXPECT_EQ(used(), main_);
  EXPECT_EQ(first_stage_loads(), 3U);
  EXPECT_EQ(used(), main_);
  EXPECT_EQ(first_stage_loads(), 4U);
  set_leaf(main_, 5, kLeaf | Pte::Ppn::make(0x77));
  EXPECT_EQ(translate(kBase + 5 * kPageBytes)->address.value, 0x77U << kPageShift);
  EXPECT_EQ(first_stage_loads(), 5U);
  EXPECT_EQ(iommu_->stats().walks, 3U);
  EXPECT_EQ(iommu_->stats().iotlb_hits, 0U);
}

// [iommu §4.1.1] [iommu §4.1.3] [iommu §9.2]
TEST_F(LastTables, AnEntryThatPointsElsewhereIsFoundAfterEachInvalidation) {
  start_tables();
  Command non_leaf = iotinval_vma(kBase, kPscid);
  non_leaf.words[0] |= Iotinval::Nl::kMask;
  const Command taking[] = {
      iotinval_vma(std::nullopt, std::nullopt), iotinval_vma(std::nullopt, kPscid),
      iotinval_vma(kBase, std::nullopt),        non_leaf,
      iotinval_vma(kBase + 0x1f'f000, kPscid),  iodir_inval_ddt(std::nullopt),
      iodir_inval_ddt(kDevice.value),           iodir_inval_pdt(kDevice.value, kPasid.value)};
  for (const Command& command : taking) {
    point_at(main_);
    submit({iotinval_vma(std::nullopt, std::nullopt)});
    EXPECT_EQ(used(), main_);
    point_at(other_);
    EXPECT_EQ(used(), main_) << "else nothing is cached";
    submit({command});
    EXPECT_EQ(used(), other_) << std::hex << command.words[0];
  }
  const Command leaving[] = {iotinval_vma(std::nullopt, kPscid + 1),
                             iotinval_vma(kBase + kRegionBytes, kPscid),
                             iotinval_gvma(std::nullopt), iodir_inval_ddt(kDevice.value + 1),
                             iodir_inval_pdt(kDevice.value, kPasid.value + 1)};
  point_at(main_);
  for (const Command& command : leaving) {
    submit({command});
    EXPECT_EQ(used(), other_) << std::hex << command.words[0];
  }
}

// [iommu §3.8]
TEST_F(LastTables, WhatIsNoTranslationIsNeverSaidOfACachedTable) {
  start_tables(DeviceContext::Tc::Sade::kMask);
  const std::uint64_t refused[] = {
      0,                                                              // not valid
      kLeaf & ~Pte::R::kMask,                                         // reserved
      kLeaf & ~Pte::U::kMask,                                         // a supervisor's
      Pte::V::kMask | Pte::X::kMask | Pte::U::kMask | Pte::A::kMask,  // not to be read
      kLeaf | Pte::N::kMask,                                          // no size that there is
      kLeaf & ~Pte::A::kMask,                                         // to be updated
      Pte::make_pointer(kHolePpn),                                    // no table of a last level
  };
  EXPECT_EQ(used(), main_);
  point_at(other_);
  for (const std::uint64_t pte : refused) {
    const std::uint64_t index = fresh_;
    set_leaf(main_, index, pte == 0 ? 0 : pte | Pte::Ppn::make(kFrames + index));
    EXPECT_EQ(used(), other_) << std::hex << pte;
    EXPECT_EQ(load((main_ << kPageShift) + index * 8) & Pte::A::kMask, pte & Pte::A::kMask);
    submit({iotinval_vma(kBase, kPscid)});
    point_at(main_);
    EXPECT_EQ(used(), main_);
    point_at(other_);
  }
  ASSERT_TRUE(memory_.set_poison(PhysAddr{(main_ << kPageShift) + fresh_ * 8}, 8).has_value());
  EXPECT_EQ(used(), other_) << "poisoned";
}

// [iommu §3.1.3.1]
TEST_F(LastTables, APasidThatIsTooWideFindsNoneOfANarrowOne) {
  start_tables();
  EXPECT_EQ(used(), main_);
  const Requester wide{Pasid{kPasid.value | 1U << kPasidBits}, false};
  EXPECT_EQ(cause_of(port_->translate(wide, Iova{fresh()}, Access::kRead)), Cause::kTtypeBlocked);
}

// [iommu §3.8]
TEST_F(LastTables, ThePrivilegeIsPartOfWhatIsCached) {
  start_tables();
  EXPECT_EQ(used(), main_);
  EXPECT_EQ(cause_of(translate(fresh(), Access::kRead, /*privileged=*/true)), Cause::kTtypeBlocked);
  using Ta = ProcessContext::Ta;
  for (const bool sum : {false, true}) {
    set_process(
        PdtpMode::kPd8, pdt_root_, kPasid,
        process_context(FirstStageMode::kSv39, root_, Ta::Ens::make(1) | Ta::Sum::make(sum)));
    forget_contexts();
    for (int i = 0; i < 2; ++i) {
      set_leaf(main_, fresh_, load((main_ << kPageShift) + fresh_ * 8) & ~Pte::U::kMask);
      EXPECT_TRUE(translate(fresh(), Access::kRead, /*privileged=*/true).has_value());
      const auto found = translate(fresh(), Access::kRead, /*privileged=*/true);
      EXPECT_EQ(found.has_value(), sum) << "a user's page";
    }
  }
}

// [iommu §6.23]
TEST_F(LastTables, EventsAreThoseOfTheProcessAndTheAddressSpaceBehindIt) {
  start_tables();
  using Evt = Iohpmevt;
  const auto select = [&](unsigned n, std::uint64_t filter) {
    write(reg::kIohpmevt1 + n * 8, Evt::EventId::make(7) | Evt::PvPscv::make(1) | filter, 8);
  };
  select(1, Evt::Idt::make(1) | Evt::PidPscid::make(kPscid));
  select(2, Evt::PidPscid::make(0));
  context_.tc |= DeviceContext::Tc::Dpe::kMask;
  set_device(kDevice, context_);
  set_process(PdtpMode::kPd8, pdt_root_, Pasid{0}, process_context(FirstStageMode::kSv39, root_));
  forget_contexts();
  for (const std::uint64_t loads : {3U, 4U}) {
    EXPECT_TRUE(port_->translate({}, Iova{fresh()}, Access::kRead).has_value());
    EXPECT_EQ(read(reg::kIohpmctr1 + 8, 8), loads);
    EXPECT_EQ(read(reg::kIohpmctr1 + 16, 8), loads);
  }
}

/// The same of a guest whose memory, in a page of 1 GiB, lies where it believes, but for its last
/// table.
class GuestsLastTables : public LastTables {
 protected:
  static constexpr std::uint32_t kGscid = 9;
  static constexpr std::uint64_t kTableGpa = 0x4000'0000;
  static constexpr Scheme kGuest{3, 2};

  void start_guest() {
    start_tables();
    guest_root_ = allocate_pages_aligned(4 * kPageBytes);
    map(guest_root_, kGuest, kRamBase, kRamBase >> kPageShift, kLeaf, 2);
    point_at(kTableGpa >> kPageShift);
    place_table(main_);
    context_.iohgatp = DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, guest_root_, kGscid);
    set_device(kDevice, context_);
    forget_contexts();
  }
  void place_table(std::uint64_t table) { map(guest_root_, kGuest, kTableGpa, table); }
  std::uint64_t guest_root_ = 0;
};

// [iommu §4.1.1]
TEST_F(GuestsLastTables, ATableThatTheSecondStageMovesIsFoundAfterEachInvalidation) {
  start_guest();
  Command of_page = iotinval_gvma(kGscid);
  of_page.words[0] |= Iotinval::Av::kMask;
  of_page.words[1] = Iotinval::Addr::make(kTableGpa >> kPageShift);
  const Command taking[] = {iotinval_gvma(std::nullopt),
                            iotinval_gvma(kGscid),
                            of_page,
                            iotinval_vma(std::nullopt, std::nullopt, kGscid),
                            iotinval_vma(kBase, kPscid, kGscid),
                            iodir_inval_ddt(kDevice.value)};
  for (const Command& command : taking) {
    place_table(main_);
    submit({iotinval_gvma(std::nullopt)});
    EXPECT_EQ(used(), main_);
    place_table(other_);
    EXPECT_EQ(used(), main_) << "else nothing is cached";
    submit({command});
    EXPECT_EQ(used(), other_) << std::hex << command.words[0];
  }
  place_table(main_);
  for (const Command& command : {iotinval_gvma(kGscid + 1), iotinval_vma(std::nullopt, kPscid),
                                 iotinval_vma(std::nullopt, std::nullopt, kGscid + 1)}) {
    submit({command});
    EXPECT_EQ(used(), other_) << std::hex << command.words[0];
  }
}

// [iommu §3.3] [iommu §4.2]
TEST_F(GuestsLastTables, ThePageItselfGoesThroughTheSecondStageEachTime) {
  start_guest();
  write(reg::kIohpmevt1 + 8, Iohpmevt::EventId::make(8), 8);
  EXPECT_EQ(used(), main_);
  EXPECT_EQ(first_stage_loads(), 3U);
  EXPECT_EQ(read(reg::kIohpmctr1 + 8, 8), 1U + 2 + 3 + 1) << "directory, tables, the last, data";
  EXPECT_EQ(used(), main_);
  EXPECT_EQ(first_stage_loads(), 4U);
  EXPECT_EQ(read(reg::kIohpmctr1 + 8, 8), 8U);
  map(guest_root_, kGuest, kRamBase, kRamBase >> kPageShift, kLeaf & ~Pte::W::kMask, 2);
  const auto found = translate_fresh();
  ASSERT_TRUE(found.has_value());
  EXPECT_FALSE(found->writable);
  map(guest_root_, kGuest, kRamBase, 0, 0, 2);
  place_table(main_);
  EXPECT_EQ(cause_of(translate_fresh()), Cause::kReadGuestPageFault);
  const auto faults = take_faults();
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].iotval2 & 1, 1U) << "as a walk from the root says: its first table is gone";
}

}  // namespace
}  // namespace tandem::iommu::detail
