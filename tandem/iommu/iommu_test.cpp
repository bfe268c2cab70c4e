// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/iommu.hpp"

#include <gtest/gtest.h>

#include <mutex>
#include <thread>
#include <vector>

#include "tandem/iommu/detail/lazy_array.hpp"
#include "tandem/iommu/detail/test_board.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu::detail {
namespace {

class IommuTest : public Board {};

TEST_F(IommuTest, ADeviceIdIsAttachedOnce) {
  FakeDevice other;
  EXPECT_EQ(iommu_->attach(kDevice, other).error(),
            std::error_code(EEXIST, std::generic_category()));
  submit({});
  port_.reset();
  EXPECT_TRUE(iommu_->attach(kDevice, other).has_value());
  EXPECT_EQ(iommu_->attach(DeviceId{1U << 24}, other).error(),
            std::error_code(EINVAL, std::generic_category()));
}

/// A page is moved from frame to frame. Version v lies in frame v % kFrames, which holds v while it
/// is mapped and kReclaimed once the fence after its unmapping has completed.
class MovingPage : public Board {
 protected:
  static constexpr std::uint64_t kFrames = 64;
  static constexpr std::uint64_t kAt = 0x7000;
  static constexpr std::uint64_t kReclaimed = ~std::uint64_t{0};
  static constexpr int kReaders = 3;

  void SetUp() override {
    start();
    frames_ = allocate_pages_aligned(kFrames * kPageBytes);
    store(address(0), 0);
    map(root_, 3, kAt, address(0) >> kPageShift);
  }
  std::uint64_t address(std::uint64_t version) const {
    return (frames_ + version % kFrames) << kPageShift;
  }

  /// Moves the page `moves` times by `move(version)`, the commands for it included, while
  /// `check(current version before)` runs on other threads.
  template <class Move, class Check>
  void run(std::uint64_t moves, Move move, Check check) {
    std::atomic<bool> stop{false};
    std::atomic<int> started{0};
    std::atomic<std::uint64_t> checks{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < kReaders; ++i) {
      readers.emplace_back([&] {
        for (bool first = true; !stop.load(std::memory_order_relaxed); first = false) {
          check(current_.load(std::memory_order_acquire));
          ++checks;
          if (first) ++started;
        }
      });
    }
    while (started < kReaders) std::this_thread::yield();
    for (std::uint64_t next = 1; next <= moves && !HasFailure(); ++next) {
      store(address(next), next);
      move(next);
      ASSERT_TRUE(idle());
      current_.store(next, std::memory_order_release);
      store(address(next - 1), kReclaimed);
      // Now and then what is stale stays so until somebody sees it.
      if (next % 16 != 0) continue;
      const std::uint64_t before = checks.load();
      while (checks.load() < before + 2 * kReaders) std::this_thread::yield();
    }
    stop = true;
    for (auto& reader : readers) reader.join();
  }

  /// Through its entry.
  void move_page(std::uint64_t version) {
    map(root_, 3, kAt, address(version) >> kPageShift);
    submit({iotinval_vma(version % 3 == 0 ? std::nullopt : std::optional{kAt}, kPscid), kFence});
  }
  /// By pointing the entry above at another table. Two take turns.
  void move_table(std::uint64_t version) {
    if (other_leaves_ == 0) {
      leaves_ = Pte::Ppn::get(load(pte_slot(root_, 3, kAt, 1)));
      other_leaves_ = allocate_page();
    }
    const std::uint64_t table = version % 2 == 0 ? leaves_ : other_leaves_;
    store((table << kPageShift) + scheme_of(FirstStageMode::kSv39).offset(0, kAt),
          Pte::Ppn::make(address(version) >> kPageShift) | kLeaf);
    store(pte_slot(root_, 3, kAt, 1), Pte::make_pointer(table));
    submit({iotinval_vma(version % 3 == 0 ? std::nullopt : std::optional{kAt}, kPscid), kFence});
  }
  /// By pointing the process at another table. Two take turns.
  void move_process(std::uint64_t version) {
    if (other_root_ == 0) other_root_ = allocate_page();
    const std::uint64_t root = version % 2 == 0 ? root_ : other_root_;
    map(root, 3, kAt, address(version) >> kPageShift);
    set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kSv39, root));
    submit({iodir_inval_pdt(kDevice.value, kPasid.value), kFence});
  }
  /// By pointing the device at another process directory. Two take turns.
  void move_device(std::uint64_t version) {
    if (other_root_ == 0) {
      other_root_ = allocate_page();
      other_pdt_ = allocate_page();
      set_process(PdtpMode::kPd8, other_pdt_, kPasid,
                  process_context(FirstStageMode::kSv39, other_root_));
    }
    const bool other = version % 2 != 0;
    map(other ? other_root_ : root_, 3, kAt, address(version) >> kPageShift);
    ExtendedDeviceContext context = context_;
    context.fsc = Fsc::make(PdtpMode::kPd8, other ? other_pdt_ : pdt_root_);
    set_device(kDevice, context);
    submit(
        {iodir_inval_ddt(version % 3 == 0 ? std::nullopt : std::optional{kDevice.value}), kFence});
  }
  /// What a translation made between `before` and now may be.
  void expect_recent(std::uint64_t before) {
    const auto found = translate(kAt);
    ASSERT_TRUE(found.has_value());
    const std::uint64_t after = current_.load(std::memory_order_acquire);
    const std::uint64_t frame = (found->address.value >> kPageShift) - frames_;
    // Versions that were mapped meanwhile: [before, after + 1].
    if (after + 1 - before >= kFrames) return;
    ASSERT_LE((frame - before) % kFrames, after + 1 - before)
        << "before " << before << " after " << after << " frame " << frame;
  }

  /// The same; every other time the page is not in the IOTLB, but the table of its leaf may be
  /// cached. (The other page takes its place in the IOTLB.)
  void expect_recent_after_misses(std::uint64_t before) {
    thread_local bool evict = false;
    evict = !evict;
    if (evict) {
      ASSERT_TRUE(translate(kRival).has_value());
    }
    expect_recent(before);
  }

  static constexpr std::uint64_t kRival = kAt + (kPageBytes << kLog2CacheEntries);
  static constexpr Command kFence = iofence_c({.order_reads = true, .order_writes = true});
  std::uint64_t frames_ = 0;
  std::uint64_t other_root_ = 0;
  std::uint64_t other_pdt_ = 0;
  std::uint64_t leaves_ = 0;
  std::uint64_t other_leaves_ = 0;
  std::atomic<std::uint64_t> current_{0};  // the last version whose fence has completed
};

// [iommu §3.8]
TEST_F(MovingPage, NoTranslationIsOlderThanTheLastCompletedInvalidation) {
  run(
      2'000, [&](std::uint64_t version) { move_page(version); },
      [&](std::uint64_t before) { expect_recent(before); });
  EXPECT_GT(iommu_->stats().iotlb_hits, 0U);
}

// [iommu §3.8]
TEST_F(MovingPage, NoLeafOfACachedTableIsOlderThanTheLastCompletedInvalidation) {
  map(root_, 3, kRival, address(0) >> kPageShift);
  run(
      2'000, [&](std::uint64_t version) { move_page(version); },
      [&](std::uint64_t before) { expect_recent_after_misses(before); });
}

// [iommu §3.8] [iommu §9.2]
TEST_F(MovingPage, NoTranslationIsThroughAnOlderTableThanTheLastInvalidated) {
  run(
      2'000, [&](std::uint64_t version) { move_table(version); },
      [&](std::uint64_t before) { expect_recent(before); });
}

// [iommu §3.8] [iommu §4.1.3]
TEST_F(MovingPage, NoTranslationIsOfAnOlderProcessContextThanTheLastInvalidated) {
  run(
      2'000, [&](std::uint64_t version) { move_process(version); },
      [&](std::uint64_t before) { expect_recent(before); });
  EXPECT_GT(iommu_->stats().iotlb_hits, 0U);
}

// [iommu §3.8] [iommu §4.1.3]
TEST_F(MovingPage, NoTranslationIsOfAnOlderDeviceContextThanTheLastInvalidated) {
  run(
      2'000, [&](std::uint64_t version) { move_device(version); },
      [&](std::uint64_t before) { expect_recent(before); });
  EXPECT_GT(iommu_->stats().iotlb_hits, 0U);
}

// [iommu §4.1.2]
TEST_F(MovingPage, NoFrameIsReclaimedUnderAnAccess) {
  const auto move = [&](std::uint64_t version) { move_page(version); };
  run(500, move, [&](std::uint64_t before) {
    const std::scoped_lock section(rcu::rcu_default_domain());
    const auto found = translate(kAt);
    ASSERT_TRUE(found.has_value());
    const auto first = memory_.load64(found->address, std::memory_order_acquire);
    ASSERT_TRUE(first.has_value());
    ASSERT_NE(*first, kReclaimed);
    ASSERT_GE(*first, before);
    for (int i = 0; i < 64; ++i) {
      if (i % 16 == 15) std::this_thread::yield();
      const auto again = memory_.load64(found->address, std::memory_order_acquire);
      ASSERT_EQ(again.value_or(kReclaimed), *first) << "reclaimed inside the section";
    }
  });
}

// [iommu §3.4]
TEST_F(MovingPage, AnUnmappedPageStaysUnmappedAndDirtyBitsSurvive) {
  context_.tc |= DeviceContext::Tc::Sade::kMask;
  set_device(kDevice, context_);
  const std::uint64_t slot = pte_slot(root_, 3, kAt);
  store(slot, 0);
  submit({iodir_inval_ddt(kDevice.value), iofence_c({})});
  constexpr std::uint64_t kClean = kLeaf & ~(Pte::A::kMask | Pte::D::kMask);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> writes{0};
  std::vector<std::thread> writers;
  for (int i = 0; i < kReaders; ++i) {
    writers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        if (translate(kAt, Access::kWrite)) ++writes;
      }
    });
  }
  write(reg::kFqcsr, 0);
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t before = writes.load();
    const std::uint64_t entry = Pte::Ppn::make(frames_ + static_cast<std::uint64_t>(i) % kFrames);
    store(slot, entry | kClean);
    while (writes.load() < before + 4) std::this_thread::yield();
    EXPECT_EQ(load(slot), entry | kLeaf) << "somebody wrote: A and D are set";
    store(slot, 0);
    submit({iotinval_vma(kAt, kPscid), iofence_c({})});
    EXPECT_EQ(load(slot), 0U) << "an A/D update must not resurrect the entry";
    EXPECT_FALSE(translate(kAt).has_value());
  }
  stop = true;
  for (auto& writer : writers) writer.join();
}

// [iommu §3.4]
TEST_F(MovingPage, ALeafThatSoftwareKeepsChangingIsUpdatedOrFaults) {
  context_.tc |= DeviceContext::Tc::Sade::kMask;
  set_device(kDevice, context_);
  const std::uint64_t slot = pte_slot(root_, 3, kAt);
  const std::uint64_t clean = load(slot) & ~(Pte::A::kMask | Pte::D::kMask);
  write(reg::kFqcsr, 0);
  std::atomic<bool> stop{false};
  std::jthread software([&] {
    for (std::uint64_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
      store(slot, Pte::Rsw::set(clean, i % 4));
    }
  });
  for (int i = 0; i < 2'000; ++i) {
    submit({iotinval_vma(kAt, kPscid)});
    const auto found = translate(kAt, Access::kWrite);
    if (!found) {
      EXPECT_EQ(cause_of(found), Cause::kWritePageFault);
    }
  }
  stop = true;
  software.join();
  submit({iotinval_vma(kAt, kPscid)});
  EXPECT_TRUE(translate(kAt, Access::kWrite).has_value());
  EXPECT_EQ(Pte::Rsw::set(load(slot), 0), Pte::Rsw::set(clean, 0) | Pte::A::kMask | Pte::D::kMask);
}

// [iommu §4.1.3]
TEST_F(MovingPage, AProcessThatWasRemovedStaysRemoved) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) (void)translate(kAt);
    });
  }
  write(reg::kFqcsr, 0);
  for (int i = 0; i < 200; ++i) {
    set_process(PdtpMode::kPd8, pdt_root_, kPasid, process_context(FirstStageMode::kSv39, root_));
    while (!translate(kAt)) std::this_thread::yield();
    set_process(PdtpMode::kPd8, pdt_root_, kPasid, {});
    submit({iodir_inval_pdt(kDevice.value, kPasid.value), iofence_c({})});
    EXPECT_EQ(cause_of(translate(kAt)), Cause::kPdtNotValid);
  }
  stop = true;
  for (auto& reader : readers) reader.join();
}

// [iommu §4.2]
TEST_F(IommuTest, FaultsFromManyThreadsAreRecordedWhole) {
  start();
  write(reg::kFqcsr, 0);
  constexpr unsigned kLog2Entries = 12;
  fault_ring_ = allocate_pages_aligned(std::uint64_t{32} << kLog2Entries) << kPageShift;
  write(reg::kFqb, QueueBase::make(kLog2Entries, fault_ring_ >> kPageShift), 8);
  write(reg::kFqcsr, Fqcsr::Fqen::kMask);
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kEach = 1000;
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::uint64_t i = 0; i < kEach; ++i) (void)translate((thread * kEach + i) << kPageShift);
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_EQ(read(reg::kFqt), kThreads * kEach);
  std::vector<int> seen(kThreads * kEach);
  for (std::uint64_t i = 0; i < kThreads * kEach; ++i) {
    const std::uint64_t page = load(fault_ring_ + i * 32 + 16) >> kPageShift;
    ASSERT_LT(page, seen.size());
    ++seen[page];
  }
  for (const int times : seen) EXPECT_EQ(times, 1);
}

}  // namespace
}  // namespace tandem::iommu::detail
