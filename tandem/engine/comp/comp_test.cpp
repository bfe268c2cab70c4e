// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/comp/comp.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "tandem/engine/comp/detail/codec.hpp"
#include "tandem/engine/test_space.hpp"

namespace tandem::engine::comp {
namespace {

using uacce::Completion;

constexpr std::uint64_t kRam = TestSpace::kRam;
constexpr std::uint64_t kRamEnd = TestSpace::kRam + TestSpace::kRamBytes;
// Where the operands lie.
constexpr std::uint64_t kPlain = kRam;
constexpr std::uint64_t kPacked = kRam + (16u << 20);
constexpr std::uint64_t kBack = kRam + (32u << 20);
constexpr std::uint32_t kRoom = 8u << 20;

struct Comp : testing::Test {
  Comp() {
    const std::string_view text = "an operand that is worth compressing, number ";
    std::string made;
    while (made.size() < (6u << 20))
      made.append(text).append(std::to_string(made.size() * 7 % 9'973));
    std::memcpy(at(kPlain, made.size()).data(), made.data(), made.size());
    std::memcpy(space.aperture().data(), made.data(), TestSpace::kApertureBytes);
  }
  std::span<std::byte> at(std::uint64_t address, std::size_t size) {
    return space.ram().subspan(address - kRam, size);
  }
  Completion run(tandem_opcode opcode, std::uint64_t src, std::uint32_t src_len, std::uint64_t dst,
                 std::uint32_t dst_len, std::uint32_t param = 0, std::uint16_t flags = 0) {
    tandem_descriptor descriptor{};
    descriptor.opcode = static_cast<std::uint16_t>(opcode);
    descriptor.flags = flags;
    descriptor.param = param;
    descriptor.src = src;
    descriptor.dst = dst;
    descriptor.src_len = src_len;
    descriptor.dst_len = dst_len;
    return worker->execute(descriptor, space.space(), session.get());
  }
  /// Inflates the member at kPacked with zlib; true when it is the first `size` bytes at `plain`.
  bool zlib_agrees(std::span<const std::byte> packed, std::span<const std::byte> plain) {
    z_stream stream{};
    inflateInit2(&stream, 15 + 32);
    std::vector<std::byte> back(plain.size() + 1);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data()));
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = reinterpret_cast<Bytef*>(back.data());
    stream.avail_out = static_cast<uInt>(back.size());
    const bool ended = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_in == 0;
    back.resize(stream.total_out);
    inflateEnd(&stream);
    return ended && std::ranges::equal(back, plain);
  }
  static void expect_fault(const Completion& completion, std::uint64_t address,
                           std::uint32_t done) {
    EXPECT_EQ(completion.status, TANDEM_STATUS_FAULT);
    EXPECT_EQ(completion.fault_address, address);
    EXPECT_EQ(completion.done, done);
  }

  TestSpace space;
  std::unique_ptr<uacce::Engine> engine = make_engine();
  std::unique_ptr<uacce::Worker> worker = engine->make_worker();
  std::unique_ptr<uacce::Session> session = engine->make_session();
};

TEST_F(Comp, TellsItsAlgorithms) {
  EXPECT_EQ(engine->traits().name, "comp-0");
  EXPECT_EQ(engine->traits().algorithms, (std::vector<std::string>{"deflate", "zlib", "gzip"}));
}

TEST_F(Comp, CompressesAndInflatesOperandsOfEverySizeAndLevel) {
  const std::pair<tandem_opcode, tandem_opcode> opcodes[] = {
      {TANDEM_OP_DEFLATE, TANDEM_OP_INFLATE},
      {TANDEM_OP_ZLIB, TANDEM_OP_ZLIB_INFLATE},
      {TANDEM_OP_GZIP, TANDEM_OP_GZIP_INFLATE}};
  for (const auto& [compress, inflate] : opcodes) {
    for (const std::uint32_t size : {0u, 1u, 100u, 65'536u, 300'000u}) {
      for (const std::uint32_t level : {0u, 1u, 2u, 6u, 12u}) {
        const Completion packed = run(compress, kPlain, size, kPacked, kRoom, level);
        ASSERT_EQ(packed.status, TANDEM_STATUS_OK);
        if (compress != TANDEM_OP_DEFLATE) {
          EXPECT_TRUE(zlib_agrees(at(kPacked, packed.done), at(kPlain, size)));
        }
        const Completion back = run(inflate, kPacked, packed.done, kBack, size);
        ASSERT_EQ(back.status, TANDEM_STATUS_OK);
        EXPECT_EQ(back.done, size);
        EXPECT_EQ(back.result, packed.done);
        EXPECT_TRUE(std::ranges::equal(at(kPlain, size), at(kBack, size)));
      }
    }
  }
}

TEST_F(Comp, TheResultOfCompressionIsTheChecksumOfTheInput) {
  const auto* const plain = reinterpret_cast<const Bytef*>(at(kPlain, 50'000).data());
  for (const std::uint32_t level : {1u, 6u}) {
    EXPECT_EQ(run(TANDEM_OP_GZIP, kPlain, 50'000, kPacked, kRoom, level).result,
              crc32(0, plain, 50'000));
    EXPECT_EQ(run(TANDEM_OP_DEFLATE, kPlain, 50'000, kPacked, kRoom, level).result,
              crc32(0, plain, 50'000));
    EXPECT_EQ(run(TANDEM_OP_ZLIB, kPlain, 50'000, kPacked, kRoom, level).result,
              adler32(1, plain, 50'000));
  }
}

TEST_F(Comp, OperandsPastTheInPlaceLimitAndInAnApertureWorkTheSame) {
  const Completion big = run(TANDEM_OP_GZIP, kPlain, 6u << 20, kPacked, kRoom);
  ASSERT_EQ(big.status, TANDEM_STATUS_OK);
  EXPECT_EQ(big.bytes_zero_copy, 0u);
  const Completion back = run(TANDEM_OP_GZIP_INFLATE, kPacked, big.done, kBack, 6u << 20);
  ASSERT_EQ(back.status, TANDEM_STATUS_OK);
  EXPECT_TRUE(std::ranges::equal(at(kPlain, 6u << 20), at(kBack, 6u << 20)));

  const Completion far =
      run(TANDEM_OP_GZIP, TestSpace::kAperture, 200'000, TestSpace::kAperture + 300'000, 300'000);
  ASSERT_EQ(far.status, TANDEM_STATUS_OK);
  EXPECT_EQ(far.bytes_copied, 200'000u + far.done);
  EXPECT_TRUE(zlib_agrees(space.aperture().subspan(300'000, far.done), at(kPlain, 200'000)));
  EXPECT_EQ(
      run(TANDEM_OP_GZIP_INFLATE, TestSpace::kAperture + 300'000, far.done, kBack, 200'000).status,
      TANDEM_STATUS_OK);
}

TEST_F(Comp, HostRamIsWorkedOnInPlaceOnceItsTranslationsAreKnown) {
  run(TANDEM_OP_GZIP, kPlain, 65'536, kPacked, 80'000);
  const Completion packed = run(TANDEM_OP_GZIP, kPlain, 65'536, kPacked, 80'000);
  const std::uint64_t moved = 65'536u + packed.done;
  EXPECT_EQ(packed.bytes_zero_copy, Compressor::input_may_change(1) ? moved : 0);
  EXPECT_EQ(packed.bytes_copied, Compressor::input_may_change(1) ? 0 : moved);
  const Completion back = run(TANDEM_OP_GZIP_INFLATE, kPacked, packed.done, kBack, 65'536);
  EXPECT_EQ(back.bytes_zero_copy, 65'536u);
  EXPECT_EQ(back.bytes_copied, packed.done);
}

TEST_F(Comp, OperationsThatFailCountTheBytesTheyMoved) {
  const auto moved = [](const Completion& completion) {
    EXPECT_NE(completion.status, TANDEM_STATUS_OK);
    return completion.bytes_zero_copy + completion.bytes_copied;
  };
  for (const std::uint32_t level : {1u, 6u}) {
    EXPECT_EQ(moved(run(TANDEM_OP_GZIP, kRamEnd - 1'000, 2'000, kPacked, kRoom, level)), 1'000u);
    EXPECT_EQ(moved(run(TANDEM_OP_GZIP, kPlain, 65'536, kRamEnd - 20, kRoom, level)), 65'556u);
    EXPECT_EQ(moved(run(TANDEM_OP_GZIP, kPlain, 65'536, kPacked, 30, level)), 65'566u);
  }
  const std::uint32_t packed = run(TANDEM_OP_GZIP, kPlain, 65'536, kPacked, kRoom, 6).done;
  EXPECT_EQ(moved(run(TANDEM_OP_GZIP_INFLATE, kPacked, packed, kBack, 65'000)), packed + 65'000u);
  EXPECT_EQ(moved(run(TANDEM_OP_GZIP_INFLATE, kPacked, packed, kRamEnd - 100, 65'536)),
            packed + 100u);
  EXPECT_EQ(moved(run(TANDEM_OP_GZIP_INFLATE, kRamEnd - 5, 10, kBack, 100)), 5u);
}

TEST_F(Comp, FaultsTellTheAddressAndWhatWasWritten) {
  for (const std::uint32_t level : {1u, 6u}) {
    expect_fault(run(TANDEM_OP_GZIP, kRamEnd - 1'000, 2'000, kPacked, kRoom, level), kRamEnd, 0);
    expect_fault(run(TANDEM_OP_GZIP, kPlain, 65'536, kRamEnd - 20, kRoom, level), kRamEnd, 20);
    expect_fault(run(TANDEM_OP_GZIP, kPlain, 65'536, TestSpace::kReadOnly, kRoom, level),
                 TestSpace::kReadOnly, 0);
  }
  const std::uint32_t packed = run(TANDEM_OP_GZIP, kPlain, 65'536, kPacked, kRoom).done;
  expect_fault(run(TANDEM_OP_GZIP_INFLATE, kPacked, packed, kRamEnd - 100, 65'536), kRamEnd, 100);
  expect_fault(run(TANDEM_OP_GZIP_INFLATE, kRamEnd - 5, 10, kBack, 100), kRamEnd, 0);
}

TEST_F(Comp, BadInputIsNamed) {
  const std::uint32_t packed = run(TANDEM_OP_GZIP, kPlain, 65'536, kPacked, kRoom).done;
  EXPECT_EQ(run(TANDEM_OP_GZIP, kPlain, 65'536, kBack, packed / 2).status,
            TANDEM_STATUS_OUTPUT_TOO_SMALL);
  EXPECT_EQ(run(TANDEM_OP_GZIP_INFLATE, kPacked, packed, kBack, 65'535).status,
            TANDEM_STATUS_OUTPUT_TOO_SMALL);
  EXPECT_EQ(run(TANDEM_OP_GZIP_INFLATE, kPacked, packed - 1, kBack, 65'536).status,
            TANDEM_STATUS_TRUNCATED_INPUT);
  EXPECT_EQ(run(TANDEM_OP_GZIP_INFLATE, kPacked, 0, kBack, 65'536).status,
            TANDEM_STATUS_TRUNCATED_INPUT);
  EXPECT_EQ(run(TANDEM_OP_ZLIB_INFLATE, kPacked, packed, kBack, 65'536).status,
            TANDEM_STATUS_CORRUPT_INPUT);
  at(kPacked, packed)[packed - 6] ^= std::byte{1};
  EXPECT_EQ(run(TANDEM_OP_GZIP_INFLATE, kPacked, packed, kBack, 65'536).status,
            TANDEM_STATUS_CORRUPT_INPUT);
}

TEST_F(Comp, DescriptorsThatNoOperationTakesAreRefused) {
  const auto bad = [&](const Completion& c) { return c.status == TANDEM_STATUS_BAD_DESCRIPTOR; };
  EXPECT_EQ(run(TANDEM_OP_COPY, kPlain, 8, kBack, 8).status, TANDEM_STATUS_UNKNOWN_OPCODE);
  EXPECT_EQ(run(TANDEM_OP_INVALID, 0, 0, 0, 0).status, TANDEM_STATUS_UNKNOWN_OPCODE);
  EXPECT_TRUE(bad(run(TANDEM_OP_GZIP, kPlain, 8, kBack, 80, TANDEM_LEVEL_BEST + 1)));
  EXPECT_TRUE(bad(run(TANDEM_OP_GZIP, kPlain, 8, kBack, 80, 1, TANDEM_DESC_FIRST)));
  EXPECT_TRUE(bad(run(TANDEM_OP_GZIP_INFLATE, kPlain, 8, kBack, 80, 1)));
  EXPECT_TRUE(bad(run(TANDEM_OP_GZIP, kPlain, TANDEM_MAX_CODEC_BYTES + 1, kBack, 80)));
  EXPECT_TRUE(bad(run(TANDEM_OP_INFLATE, kPlain, 8, kBack, TANDEM_MAX_CODEC_BYTES + 1)));
  EXPECT_TRUE(bad(run(TANDEM_OP_INFLATE_STREAM, kPlain, 8, kBack, 8, 3, TANDEM_DESC_FIRST)));
  EXPECT_TRUE(bad(run(TANDEM_OP_INFLATE_STREAM, kPlain, 8, kBack, 8, 0, 4)));
  EXPECT_TRUE(bad(run(TANDEM_OP_INFLATE_STREAM, kPlain, 8, kBack, 8, TANDEM_FORMAT_GZIP)))
      << "no stream was started";
  tandem_descriptor reserved{};
  reserved.opcode = TANDEM_OP_GZIP;
  reserved.reserved[1] = 1;
  EXPECT_TRUE(bad(worker->execute(reserved, space.space(), session.get())));
  EXPECT_EQ(run(TANDEM_OP_GZIP, ~0ull - 3, 8, kBack, 80).status, TANDEM_STATUS_BAD_RANGE);
  EXPECT_EQ(run(TANDEM_OP_GZIP, kPlain, 8, ~0ull - 3, 80).status, TANDEM_STATUS_BAD_RANGE);
}

struct Stream : Comp {
  static constexpr std::uint32_t kSize = 3u << 20;
  std::uint32_t packed = run(TANDEM_OP_GZIP, kPlain, kSize, kPacked, kRoom).done;

  Completion step(std::uint32_t from, std::uint32_t in, std::uint64_t dst, std::uint32_t out,
                  unsigned flags = 0) {
    return run(TANDEM_OP_INFLATE_STREAM, kPacked + from, in, dst, out, TANDEM_FORMAT_GZIP,
               static_cast<std::uint16_t>(flags));
  }
};

TEST_F(Stream, GoesOnOverManyRequests) {
  for (const auto& [in, out] : {std::pair{1'000u, 70'000u}, {70'000u, 9'999u}, {kRoom, kRoom}}) {
    std::uint32_t taken = 0;
    std::uint32_t made = 0;
    Completion last;
    for (bool first = true; !last.stream_end; first = false) {
      const std::uint32_t size = std::min(in, packed - taken);
      last = step(taken, size, kBack + made, out, first ? TANDEM_DESC_FIRST : 0);
      ASSERT_EQ(last.status, TANDEM_STATUS_OK);
      ASSERT_TRUE(last.stream_end || last.done != 0 || last.result != 0);
      taken += static_cast<std::uint32_t>(last.result);
      made += last.done;
    }
    EXPECT_EQ(taken, packed);
    EXPECT_EQ(made, kSize);
    EXPECT_TRUE(std::ranges::equal(at(kPlain, kSize), at(kBack, kSize)));
  }
}

TEST_F(Stream, OneRequestOfAnyLengthMayHoldItAll) {
  const Completion whole = step(0, packed + 500, kBack, kRoom, TANDEM_DESC_FIRST);
  EXPECT_TRUE(whole.stream_end);
  EXPECT_EQ(whole.result, packed);
  EXPECT_EQ(whole.done, kSize);
  EXPECT_EQ(step(packed, 8, kBack, 8).status, TANDEM_STATUS_BAD_DESCRIPTOR) << "it is over";
}

TEST_F(Stream, AFaultThatTookNothingLeavesItAsItWas) {
  const Completion begun = step(0, 1'000, kBack, kRoom, TANDEM_DESC_FIRST);
  ASSERT_EQ(begun.result, 1'000u);
  EXPECT_EQ(run(TANDEM_OP_INFLATE_STREAM, kRamEnd, 1'000, kBack, kRoom, TANDEM_FORMAT_GZIP).status,
            TANDEM_STATUS_FAULT);
  const Completion rest = step(1'000, packed - 1'000, kBack + begun.done, kRoom);
  EXPECT_EQ(rest.status, TANDEM_STATUS_OK);
  EXPECT_TRUE(rest.stream_end);
  EXPECT_TRUE(std::ranges::equal(at(kPlain, kSize), at(kBack, kSize)));
}

TEST_F(Stream, AFaultThatLostOutputEndsIt) {
  ASSERT_EQ(step(0, 1'000, kBack, 1'000, TANDEM_DESC_FIRST).status, TANDEM_STATUS_OK);
  const Completion lost = step(1'000, 1'000, kRamEnd - 100, 1'000);
  expect_fault(lost, kRamEnd, 100);
  EXPECT_EQ(step(2'000, 1'000, kBack, 1'000).status, TANDEM_STATUS_BAD_DESCRIPTOR);
}

TEST_F(Stream, OnlyTheLastRequestCanBeTruncated) {
  ASSERT_EQ(step(0, packed - 1, kBack, kRoom, TANDEM_DESC_FIRST).status, TANDEM_STATUS_OK);
  EXPECT_EQ(step(packed, 0, kBack, kRoom, TANDEM_DESC_LAST).status, TANDEM_STATUS_TRUNCATED_INPUT);
  EXPECT_EQ(step(0, packed - 1, kBack, kRoom, TANDEM_DESC_FIRST | TANDEM_DESC_LAST).status,
            TANDEM_STATUS_TRUNCATED_INPUT);
  at(kPacked, packed)[packed - 1] ^= std::byte{1};
  EXPECT_EQ(step(0, packed, kBack, kRoom, TANDEM_DESC_FIRST).status, TANDEM_STATUS_CORRUPT_INPUT);
}

}  // namespace
}  // namespace tandem::engine::comp
