// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "tandem/iommu/detail/test_board.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu::detail {
namespace {

using namespace std::chrono_literals;

class Reset : public Board {
 protected:
  static constexpr std::uint64_t kAt = 0x7000;
  static constexpr std::uint64_t kReclaimed = ~std::uint64_t{0};

  Reset() : Board(Iommu::Options{.capabilities = kAllCapabilities}) {}

  /// Time enough for what does not wait, and not much more on a machine that is busy.
  static void give_time_to(const std::atomic<bool>& over) {
    const auto until = std::chrono::steady_clock::now() + 20ms;
    while (!over && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  }

  std::vector<std::uint64_t> registers() {
    std::vector<std::uint64_t> values;
    for (std::uint32_t at = 0; at < reg::kFileBytes; at += 4) {
      const bool runs = at == reg::kIohpmcycles || at == reg::kIohpmcycles + 4;
      values.push_back(runs ? 0 : read(at));
    }
    return values;
  }
};

// [iommu §6.2]
TEST_F(Reset, RegistersAreAsAtTheBeginning) {
  const auto before = registers();
  for (std::uint32_t at = 0; at < reg::kFileBytes; at += 4) write(at, 0);
  for (std::uint32_t at = 0; at < reg::kFileBytes; at += 4) {
    const bool queue = at == reg::kCqcsr || at == reg::kFqcsr || at == reg::kPqcsr;
    if (at != reg::kDdtp && !queue) write(at, 0x8765'4321);
  }
  for (const std::uint32_t at : {reg::kFctl, reg::kIocountinh, reg::kIohpmevt1, reg::kTrReqIova,
                                 reg::kTrReqCtl, reg::kIommuQosid, reg::kIcvec, reg::kCqb}) {
    EXPECT_NE(read(at), before[at / 4]) << "at " << at;
  }
  iommu_->reset();
  EXPECT_EQ(registers(), before);
  start();
  write(reg::kIcvec, 0x1234);
  for (std::uint32_t at = reg::kMsiAddress; at < reg::kReservedFrom; at += 4)
    write(at, 0x9999'9999);
  EXPECT_FALSE(translate(kAt).has_value());
  submit({Command{}});
  EXPECT_NE(read(reg::kIpsr), 0U);
  iommu_->reset();
  EXPECT_EQ(registers(), before);
}

// [iommu §6.2]
TEST_F(Reset, NothingIsCached) {
  start();
  const std::uint64_t frames = allocate_page();
  map(root_, 3, kAt, frames);
  EXPECT_TRUE(translate(kAt).has_value());
  iommu_->reset();
  EXPECT_EQ(cause_of(translate(kAt)), Cause::kAllInboundDisallowed);
  map(root_, 3, kAt, frames + 1);
  set_ddtp(Ddtp::ModeValue::k1Lvl);
  EXPECT_EQ(translate(kAt)->address.value, ((frames + 1) << kPageShift))
      << "the device is still attached";
}

// [iommu §6.2]
TEST_F(Reset, WiresFall) {
  std::vector<bool> levels;
  iommu_->on_wire([&](unsigned, bool level) { levels.push_back(level); });
  start();
  EXPECT_FALSE(translate(kAt).has_value());
  iommu_->reset();
  EXPECT_EQ(levels, (std::vector<bool>{true, false}));
}

// [iommu §6.2] [iommu §6.5]
TEST_F(Reset, WaitsForAccessesThroughEarlierTranslations) {
  start();
  map(root_, 3, kAt, allocate_page());
  const std::function<void()> ends[] = {[&] { write(reg::kDdtp, 0, 8); }, [&] { iommu_->reset(); }};
  for (const auto& end : ends) {
    std::atomic<bool> accesses{false};
    std::atomic<bool> over{false};
    std::jthread access([&] {
      const std::scoped_lock section(rcu::rcu_default_domain());
      EXPECT_TRUE(translate(kAt).has_value());
      accesses = true;
      give_time_to(over);
      EXPECT_FALSE(over);
    });
    while (!accesses) std::this_thread::yield();
    end();
    over = true;
    access.join();
    set_ddtp(Ddtp::ModeValue::k1Lvl);
  }
}

// [iommu §6.2]
TEST_F(Reset, EndsTheWorkInFlight) {
  constexpr int kResets = 200;
  const std::uint64_t frame = allocate_page();
  const std::uint64_t message = allocate_page() << kPageShift;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> reached{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        {
          const std::scoped_lock section(rcu::rcu_default_domain());
          if (const auto found = translate(kAt)) {
            const auto value = memory_.load64(found->address, std::memory_order_acquire);
            ASSERT_NE(value.value_or(kReclaimed), kReclaimed) << "an access after the reset";
            ++reached;
          }
        }
        static_cast<void>(translate(0xdead'b000));
        write(reg::kCqt, read(reg::kCqt) ^ 1);
      }
    });
  }
  for (int round = 0; round < kResets && !HasFailure(); ++round) {
    store(frame << kPageShift, static_cast<std::uint64_t>(round));
    write(reg::kFctl, 0);
    write(reg::kMsiAddress, message, 8);
    write(reg::kMsiData, 1);
    start();
    map(root_, 3, kAt, frame);
    const std::uint64_t before = reached;
    while (reached < before + 2) std::this_thread::yield();
    iommu_->reset();
    store(frame << kPageShift, kReclaimed);
    store(message, 0);
    EXPECT_EQ(read(reg::kIpsr), 0U);
    EXPECT_EQ(read(reg::kCqcsr) | read(reg::kFqcsr) | read(reg::kPqcsr), 0U);
    std::this_thread::yield();
    EXPECT_EQ(load(message), 0U) << "a message after the reset";
  }
  stop = true;
}

}  // namespace
}  // namespace tandem::iommu::detail
