// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/memory/memory.hpp"

namespace tandem::memory {
namespace {

/// Remembers which accesses it saw.
class Recorder : public IoRegion {
 public:
  using Accesses = std::vector<std::pair<std::uint64_t, std::size_t>>;

  explicit Recorder(AccessSizes sizes) : sizes_(sizes) {}
  AccessSizes access_sizes() const override { return sizes_; }
  Outcome read(std::uint64_t offset, std::span<std::byte> to) override {
    seen_.emplace_back(offset, to.size());
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<std::byte>(offset + i);
    return {to.size(), Fault::kNone};
  }
  Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    seen_.emplace_back(offset, from.size());
    return {from.size(), Fault::kNone};
  }
  Accesses take() { return std::exchange(seen_, {}); }

 private:
  AccessSizes sizes_;
  Accesses seen_;
};

class AccessSizesTest : public testing::Test {
 protected:
  Recorder& add(AccessSizes sizes) {
    auto region = std::make_shared<Recorder>(sizes);
    Recorder& recorder = *region;
    EXPECT_TRUE(memory_.add_io({0x1000}, kPageSize, std::move(region)));
    return recorder;
  }
  Outcome read(std::uint64_t at, std::size_t length) {
    buffer_.assign(length, std::byte{0xee});
    return memory_.read({at}, buffer_);
  }
  Memory memory_;
  std::vector<std::byte> buffer_;
};

TEST_F(AccessSizesTest, ByDefaultAnAccessIsOneCall) {
  Recorder& region = add({});
  EXPECT_TRUE(read(0x1003, 1000).ok());
  EXPECT_EQ(region.take(), (Recorder::Accesses{{3, 1000}}));
}

TEST_F(AccessSizesTest, ALongAccessIsSplitInAscendingOrder) {
  Recorder& region = add({.min_bytes = 1, .max_bytes = 4});
  EXPECT_TRUE(read(0x1003, 10).ok());
  EXPECT_EQ(region.take(), (Recorder::Accesses{{3, 4}, {7, 4}, {11, 2}}));
  for (std::size_t i = 0; i < buffer_.size(); ++i) EXPECT_EQ(buffer_[i], std::byte(3 + i));
}

TEST_F(AccessSizesTest, AlignedAccessesArePowersOfTwoAtTheirMultiples) {
  Recorder& region = add({.min_bytes = 1, .max_bytes = 8, .aligned = true});
  EXPECT_TRUE(read(0x1003, 16).ok());
  EXPECT_EQ(region.take(), (Recorder::Accesses{{3, 1}, {4, 4}, {8, 8}, {16, 2}, {18, 1}}));
  for (std::size_t i = 0; i < buffer_.size(); ++i) EXPECT_EQ(buffer_[i], std::byte(3 + i));
}

TEST_F(AccessSizesTest, AnAccessTooSmallIsRefusedWhereItBegins) {
  Recorder& region = add({.min_bytes = 4, .max_bytes = 8, .aligned = true});
  Outcome outcome = read(0x1004, 16);
  EXPECT_TRUE(outcome.ok());
  EXPECT_EQ(region.take(), (Recorder::Accesses{{4, 4}, {8, 8}, {16, 4}}));

  outcome = read(0x1002, 8);
  EXPECT_EQ(outcome.fault, Fault::kAccessSize);
  EXPECT_EQ(outcome.done_bytes, 0u);
  EXPECT_TRUE(region.take().empty());

  outcome = read(0x1008, 10);
  EXPECT_EQ(outcome.fault, Fault::kAccessSize);
  EXPECT_EQ(outcome.done_bytes, 8u);
  EXPECT_EQ(buffer_[8], std::byte{0xee});

  const std::array<std::byte, 2> word{};
  EXPECT_EQ(memory_.write({0x1000}, word).fault, Fault::kAccessSize);
}

TEST_F(AccessSizesTest, UnalignedAccessesAreTakenWhereNotForbidden) {
  Recorder& region = add({.min_bytes = 2, .max_bytes = 2});
  EXPECT_TRUE(read(0x1001, 4).ok());
  EXPECT_EQ(region.take(), (Recorder::Accesses{{1, 2}, {3, 2}}));
  EXPECT_EQ(read(0x1001, 5).done_bytes, 4u);
}

TEST_F(AccessSizesTest, SizesThatAreNoneAreRefused) {
  for (const AccessSizes sizes :
       {AccessSizes{.min_bytes = 0}, AccessSizes{.min_bytes = 3},
        AccessSizes{.min_bytes = 1, .max_bytes = 6}, AccessSizes{.min_bytes = 8, .max_bytes = 4}}) {
    EXPECT_EQ(memory_.add_io({0x1000}, kPageSize, std::make_shared<Recorder>(sizes)).error(),
              std::make_error_code(std::errc::invalid_argument));
  }
}

}  // namespace
}  // namespace tandem::memory
