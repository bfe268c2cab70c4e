// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/mem/mem.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tandem/engine/test_space.hpp"

namespace tandem::engine::mem {
namespace {

using uacce::Completion;

constexpr std::uint64_t kRam = TestSpace::kRam;
constexpr std::uint64_t kRamEnd = TestSpace::kRam + TestSpace::kRamBytes;
constexpr unsigned kSeed = 77;

tandem_descriptor descriptor_of(tandem_opcode opcode, std::uint64_t src, std::uint64_t dst,
                                std::uint32_t src_len, std::uint32_t dst_len,
                                std::uint64_t operand = 0) {
  tandem_descriptor descriptor{};
  descriptor.opcode = static_cast<std::uint16_t>(opcode);
  descriptor.src = src;
  descriptor.dst = dst;
  descriptor.src_len = src_len;
  descriptor.dst_len = dst_len;
  descriptor.operand = operand;
  return descriptor;
}
tandem_descriptor copy(std::uint64_t src, std::uint64_t dst, std::uint32_t length) {
  return descriptor_of(TANDEM_OP_COPY, src, dst, length, length);
}
tandem_descriptor fill(std::uint64_t dst, std::uint32_t length, std::uint64_t pattern) {
  return descriptor_of(TANDEM_OP_FILL, 0, dst, 0, length, pattern);
}
tandem_descriptor compare(std::uint64_t a, std::uint64_t b, std::uint32_t length) {
  return descriptor_of(TANDEM_OP_COMPARE, a, b, length, length);
}
tandem_descriptor crc32c(std::uint64_t src, std::uint32_t length, std::uint64_t seed = 0) {
  return descriptor_of(TANDEM_OP_CRC32C, src, 0, length, 0, seed);
}

struct Mem : testing::Test {
  Mem() {
    std::mt19937_64 random(kSeed);
    for (const auto bytes : {ram(), space.aperture()}) {
      for (std::size_t at = 0; at + 8 <= std::min<std::size_t>(bytes.size(), 4 << 20); at += 8) {
        const std::uint64_t word = random();
        std::memcpy(&bytes[at], &word, sizeof word);
      }
    }
  }
  std::span<std::byte> ram() { return space.ram(); }
  Completion run(const tandem_descriptor& descriptor) {
    return worker->execute(descriptor, space.space(), nullptr);
  }
  static void expect_ok(const Completion& completion, std::uint32_t done) {
    EXPECT_EQ(completion.status, TANDEM_STATUS_OK);
    EXPECT_EQ(completion.done, done);
  }
  static void expect_fault(const Completion& completion, std::uint64_t address,
                           std::uint32_t done) {
    EXPECT_EQ(completion.status, TANDEM_STATUS_FAULT);
    EXPECT_EQ(completion.fault_address, address);
    EXPECT_EQ(completion.done, done);
    EXPECT_GE(completion.bytes_zero_copy + completion.bytes_copied, done) << "what it moved counts";
  }

  TestSpace space;
  std::unique_ptr<uacce::Worker> worker = make_engine()->make_worker();
};

TEST(MemEngine, TellsItsNameAndAlgorithms) {
  const uacce::DeviceTraits traits = make_engine("mem-7")->traits();
  EXPECT_EQ(traits.name, "mem-7");
  EXPECT_EQ(traits.algorithms, (std::vector<std::string>{"memory", "crc32c"}));
  EXPECT_EQ(make_engine()->traits().name, "mem-0");
}

TEST_F(Mem, CopiesEveryLength) {
  for (const std::uint32_t length : {0u, 1u, 7u, 64u, 4'096u, 32'768u, 32'769u, 200'001u}) {
    expect_ok(run(copy(kRam + 3, kRam + (2 << 20) + 5, length)), length);
    EXPECT_TRUE(std::ranges::equal(ram().subspan(3, length), ram().subspan((2 << 20) + 5, length)));
  }
}

TEST_F(Mem, OverlappingCopiesAreMemmoves) {
  for (const std::uint32_t length : {100u, 32'768u, 33'000u, 150'000u}) {
    for (const int shift : {-40'000, -1'000, -3, 0, 3, 1'000, 40'000}) {
      std::vector<std::byte> expected(ram().begin(), ram().begin() + 400'000);
      std::memmove(&expected[static_cast<std::size_t>(100'000 + shift)], &expected[100'000],
                   length);
      const std::uint64_t dst = kRam + static_cast<std::uint64_t>(100'000 + shift);
      expect_ok(run(copy(kRam + 100'000, dst, length)), length);
      EXPECT_TRUE(std::ranges::equal(expected, ram().first(expected.size())))
          << length << " bytes by " << shift;
    }
  }
}

TEST_F(Mem, CopyNeedsRoomAndMayHaveMore) {
  tandem_descriptor descriptor = copy(kRam, kRam + 4'096, 100);
  descriptor.dst_len = 99;
  EXPECT_EQ(run(descriptor).status, TANDEM_STATUS_OUTPUT_TOO_SMALL);
  descriptor.dst_len = 4'000;
  expect_ok(run(descriptor), 100);
}

TEST_F(Mem, CopyReportsTheByteThatFaultedAndCopiedThoseBefore) {
  const auto end = ram().subspan(ram().size() - 50'000);
  std::ranges::copy(ram().first(50'000), end.begin());
  expect_fault(run(copy(kRamEnd - 50'000, kRam, 60'000)), kRamEnd, 50'000);
  EXPECT_TRUE(std::ranges::equal(ram().first(50'000), end));

  expect_fault(run(copy(kRam + 100'000, kRamEnd - 40'000, 60'000)), kRamEnd, 40'000);
  EXPECT_TRUE(std::ranges::equal(ram().subspan(100'000, 40'000), ram().last(40'000)));

  const std::uint64_t limit = TestSpace::kApertureLimit;
  expect_fault(run(copy(TestSpace::kAperture + limit - 70'000, kRam, 90'000)),
               TestSpace::kAperture + limit, 70'000);
  EXPECT_TRUE(
      std::ranges::equal(ram().first(70'000), space.aperture().subspan(limit - 70'000, 70'000)));
  expect_fault(run(copy(kRam, TestSpace::kAperture + limit - 5, 10)), TestSpace::kAperture + limit,
               5);
}

TEST_F(Mem, ReadOnlyMemoryIsReadAndNotWritten) {
  expect_ok(run(copy(TestSpace::kReadOnly, kRam + (3 << 20), 100)), 100);
  const std::byte before = ram()[0];
  expect_fault(run(copy(kRam + 100, TestSpace::kReadOnly, 100)), TestSpace::kReadOnly, 0);
  EXPECT_EQ(ram()[0], before);
}

TEST_F(Mem, AnOverlappingCopyThatFaultsCountsWhatItWroteAtTheEnd) {
  expect_fault(run(copy(kRamEnd - 110'000, kRamEnd - 70'000, 90'000)), kRamEnd, 0);
  const std::vector<std::byte> before(ram().begin(), ram().begin() + 80'000);
  expect_fault(run(copy(kRam - 10'000, kRam + 20'000, 90'000)), kRam - 10'000, 65'536);
  EXPECT_TRUE(
      std::ranges::equal(std::span{before}.subspan(14'464, 65'536), ram().subspan(44'464, 65'536)));
}

TEST_F(Mem, FillRepeatsThePatternAtAnyLength) {
  constexpr std::uint64_t kPattern = 0x8877'6655'4433'2211;
  for (const std::uint32_t length : {0u, 1u, 8u, 13u, 32'768u, 100'003u}) {
    std::ranges::fill(ram().first(100'010), std::byte{0});
    expect_ok(run(fill(kRam + 1, length, kPattern)), length);
    for (std::uint32_t i = 0; i < length; ++i) {
      ASSERT_EQ(ram()[1 + i], static_cast<std::byte>(kPattern >> (i % 8 * 8) & 0xff)) << i;
    }
    EXPECT_EQ(ram()[0], std::byte{0});
    EXPECT_EQ(ram()[1 + length], std::byte{0});
  }
  expect_fault(run(fill(kRamEnd - 40'000, 50'000, 0)), kRamEnd, 40'000);
}

TEST_F(Mem, CompareFindsTheFirstDifference) {
  for (const std::uint32_t length : {0u, 1u, 100u, 100'000u}) {
    std::ranges::copy(ram().first(length), ram().begin() + (1 << 20));
    const Completion same = run(compare(kRam, kRam + (1 << 20), length));
    expect_ok(same, length);
    EXPECT_EQ(same.result, length);
    for (std::uint32_t at = 0; at < length; at += 1 + length / 7) {
      ram()[(1 << 20) + at] ^= std::byte{1};
      EXPECT_EQ(run(compare(kRam, kRam + (1 << 20), length)).result, at);
      ram()[(1 << 20) + at] ^= std::byte{1};
    }
  }
}

TEST_F(Mem, CompareAnswersBeforeAFaultAndFaultsOtherwise) {
  std::ranges::copy(ram().last(40'000), ram().begin());
  expect_fault(run(compare(kRam, kRamEnd - 40'000, 50'000)), kRamEnd, 40'000);
  expect_fault(run(compare(kRamEnd - 40'000, kRam, 50'000)), kRamEnd, 40'000);
  ram()[39'999] ^= std::byte{1};
  const Completion different = run(compare(kRam, kRamEnd - 40'000, 50'000));
  expect_ok(different, 39'999);
  EXPECT_EQ(different.result, 39'999u);
}

// [RFC 3720 §B.4 "CRC Examples"]
TEST_F(Mem, Crc32cOfTheKnownVectors) {
  const auto crc_of = [&](const std::vector<std::uint8_t>& bytes) {
    std::memcpy(ram().data(), bytes.data(), bytes.size());
    return run(crc32c(kRam, static_cast<std::uint32_t>(bytes.size()))).result;
  };
  std::vector<std::uint8_t> rising(32);
  for (std::size_t i = 0; i < 32; ++i) rising[i] = static_cast<std::uint8_t>(i);
  EXPECT_EQ(crc_of(std::vector<std::uint8_t>(32, 0)), 0x8a9136aau);
  EXPECT_EQ(crc_of(std::vector<std::uint8_t>(32, 0xff)), 0x62a8ab43u);
  EXPECT_EQ(crc_of(rising), 0x46dd794eu);
  EXPECT_EQ(crc_of({'1', '2', '3', '4', '5', '6', '7', '8', '9'}), 0xe3069283u);
}

TEST_F(Mem, Crc32cContinuesFromAResult) {
  const std::uint64_t whole = run(crc32c(kRam, 100'000)).result;
  for (const std::uint32_t cut : {0u, 1u, 32'768u, 70'001u, 100'000u}) {
    const std::uint64_t first = run(crc32c(kRam, cut)).result;
    EXPECT_EQ(run(crc32c(kRam + cut, 100'000 - cut, first)).result, whole);
  }
  expect_fault(run(crc32c(kRamEnd - 10, 20)), kRamEnd, 10);
}

TEST_F(Mem, WhatItDoesNotKnowIsRefused) {
  tandem_descriptor descriptor = copy(kRam, kRam + 4'096, 8);
  for (const unsigned opcode : {0u, 0x10u, unsigned{TANDEM_OP_GZIP}, 0xffffu}) {
    descriptor.opcode = static_cast<std::uint16_t>(opcode);
    EXPECT_EQ(run(descriptor).status, TANDEM_STATUS_UNKNOWN_OPCODE);
  }
  const auto refused = [&](tandem_descriptor bad, auto change) {
    change(bad);
    return run(bad).status == TANDEM_STATUS_BAD_DESCRIPTOR;
  };
  for (const auto& good :
       {copy(kRam, kRam, 8), fill(kRam, 8, 1), compare(kRam, kRam, 8), crc32c(kRam, 8)}) {
    EXPECT_TRUE(refused(good, [](auto& d) { d.flags = 1; }));
    EXPECT_TRUE(refused(good, [](auto& d) { d.param = 1; }));
    EXPECT_TRUE(refused(good, [](auto& d) { d.reserved[0] = 1; }));
    EXPECT_TRUE(refused(good, [](auto& d) { d.reserved[1] = 1; }));
  }
  EXPECT_TRUE(refused(fill(kRam, 8, 1), [](auto& d) { d.src_len = 1; }));
  EXPECT_TRUE(refused(compare(kRam, kRam, 8), [](auto& d) { d.dst_len = 9; }));
  EXPECT_TRUE(refused(crc32c(kRam, 8), [](auto& d) { d.dst_len = 1; }));
  EXPECT_TRUE(refused(crc32c(kRam, 8), [](auto& d) { d.operand = 1ull << 32; }));
}

TEST_F(Mem, RangesThatWrapAreBadBeforeAnythingIsTouched) {
  const std::byte before = ram()[0];
  const Completion source = run(copy(~0ull - 9, kRam, 11));
  EXPECT_EQ(source.status, TANDEM_STATUS_BAD_RANGE);
  EXPECT_EQ(source.done, 0u);
  EXPECT_EQ(run(fill(~0ull - 9, 11, ~0ull)).status, TANDEM_STATUS_BAD_RANGE);
  EXPECT_EQ(run(fill(~0ull - 9, 10, ~0ull)).status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(ram()[0], before);
}

}  // namespace
}  // namespace tandem::engine::mem
