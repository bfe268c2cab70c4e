// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/comp/detail/codec.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace tandem::engine::comp {
namespace {

using Bytes = std::vector<std::byte>;

constexpr Format kFormats[] = {Format::kDeflate, Format::kZlib, Format::kGzip};
constexpr unsigned kSeed = 20260222;

Bytes bytes_of(const std::string& text) {
  Bytes bytes(text.size());
  std::ranges::transform(text, bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
  return bytes;
}

Bytes random_bytes(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0xff);
  return bytes;
}

Bytes text(std::size_t size) {
  static const std::string words[] = {"queue ",  "doorbell ", "engine ",
                                      "of the ", "PASID\n",   "and "};
  std::mt19937 random(kSeed);
  std::string made;
  while (made.size() < size)
    made += words[random() % std::size(words)] + std::to_string(random() % 50);
  made.resize(size);
  return bytes_of(made);
}

struct Sample {
  std::string name;
  Bytes bytes;
};

std::vector<Sample> samples() {
  Bytes mixed = text(70'000);
  const Bytes noise = random_bytes(70'000, kSeed);
  mixed.insert(mixed.end(), noise.begin(), noise.end());
  mixed.resize(200'000);
  return {{"empty", {}},
          {"one byte", bytes_of("x")},
          {"short", bytes_of("hello hello hello")},
          {"text", text(100'000)},
          {"zeros", Bytes(300'000)},
          {"random", noise},
          {"mixed", mixed}};
}

int window_bits(Format format) {
  return format == Format::kDeflate ? -15 : format == Format::kZlib ? 15 : 31;
}

/// What zlib makes of `input`; `level` is zlib's.
Bytes zlib_compress(Format format, int level, const Bytes& input,
                    int strategy = Z_DEFAULT_STRATEGY) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, level, Z_DEFLATED, window_bits(format), 8, strategy), Z_OK);
  Bytes output(deflateBound(&stream, input.size()) + 32);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(output.data());
  stream.avail_out = static_cast<uInt>(output.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  output.resize(stream.total_out);
  deflateEnd(&stream);
  return output;
}

/// What zlib reads from all of `input`, or nothing when it finds fault with it.
std::optional<Bytes> zlib_inflate(Format format, std::span<const std::byte> input,
                                  std::size_t room) {
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, window_bits(format)), Z_OK);
  Bytes output(room + 1);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(output.data());
  stream.avail_out = static_cast<uInt>(output.size());
  const bool ended = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_in == 0;
  output.resize(stream.total_out);
  inflateEnd(&stream);
  return ended ? std::optional(output) : std::nullopt;
}

std::uint32_t zlib_checksum(Format format, const Bytes& bytes) {
  const auto* const data = reinterpret_cast<const Bytef*>(bytes.data());
  const auto size = static_cast<uInt>(bytes.size());
  // With a null pointer zlib answers the initial value.
  if (size == 0) return format == Format::kZlib ? 1 : 0;
  return static_cast<std::uint32_t>(format == Format::kZlib ? adler32(1, data, size)
                                                            : crc32(0, data, size));
}

unsigned seed_from(std::mt19937& random) { return static_cast<unsigned>(random()); }

std::string describe(Format format, const Sample& sample, unsigned level) {
  return "format " + std::to_string(static_cast<int>(format)) + ", " + sample.name + ", level " +
         std::to_string(level);
}

struct Codecs : testing::Test {
  Compressor compressor;
  Inflater inflater;

  Bytes compress(Format format, unsigned level, const Bytes& input) {
    Bytes output(tandem_compress_bound(static_cast<std::uint32_t>(input.size())));
    const CodecResult result = compressor.compress(format, level, input, output);
    EXPECT_EQ(result.status, TANDEM_STATUS_OK);
    EXPECT_EQ(result.checksum, zlib_checksum(format, input));
    output.resize(result.produced);
    return output;
  }
};

TEST_F(Codecs, ZlibReadsWhatEveryLevelWrites) {
  for (const Format format : kFormats) {
    for (const Sample& sample : samples()) {
      for (unsigned level = TANDEM_LEVEL_DEFAULT; level <= TANDEM_LEVEL_BEST; ++level) {
        SCOPED_TRACE(describe(format, sample, level));
        const Bytes member = compress(format, level, sample.bytes);
        EXPECT_EQ(zlib_inflate(format, member, sample.bytes.size()), sample.bytes);
      }
    }
  }
}

TEST_F(Codecs, InflatesWhatEveryLevelOfZlibWrites) {
  for (const Format format : kFormats) {
    for (const Sample& sample : samples()) {
      for (int level = 0; level <= 9; ++level) {
        for (const int strategy : {Z_DEFAULT_STRATEGY, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED}) {
          SCOPED_TRACE(describe(format, sample, static_cast<unsigned>(level)));
          const Bytes member = zlib_compress(format, level, sample.bytes, strategy);
          Bytes output(sample.bytes.size());
          const CodecResult result = inflater.inflate(format, member, output);
          ASSERT_EQ(result.status, TANDEM_STATUS_OK);
          EXPECT_EQ(result.consumed, member.size());
          EXPECT_EQ(result.produced, output.size());
          EXPECT_EQ(output, sample.bytes);
        }
      }
    }
  }
}

TEST_F(Codecs, StatesInTheHeaderWhichEndOfTheScaleWasUsed) {
  EXPECT_EQ(compress(Format::kGzip, 1, text(100))[8], std::byte{4});
  EXPECT_EQ(compress(Format::kGzip, 9, text(100))[8], std::byte{2});
  EXPECT_EQ(compress(Format::kZlib, 1, text(100))[1], std::byte{0x01});
  EXPECT_EQ(compress(Format::kZlib, 9, text(100))[1], std::byte{0xda});
}

TEST_F(Codecs, HigherLevelsAreSmaller) {
  const Bytes input = text(200'000);
  EXPECT_LT(compress(Format::kGzip, 6, input).size(), compress(Format::kGzip, 1, input).size());
  EXPECT_LE(compress(Format::kGzip, 12, input).size(), compress(Format::kGzip, 6, input).size());
}

TEST_F(Codecs, CompressSaysTooSmallForEverySizeBelowTheOutput) {
  const Bytes input = text(2'000);
  for (const Format format : kFormats) {
    for (const unsigned level : {1u, 2u, 6u}) {
      const std::size_t needed = compress(format, level, input).size();
      for (std::size_t room = 0; room < needed; ++room) {
        Bytes output(room + 16, std::byte{0xa5});
        const CodecResult result =
            compressor.compress(format, level, input, std::span{output}.first(room));
        if (result.status == TANDEM_STATUS_OK) {
          // A library may find a tighter coding when it must; it has to be right then.
          EXPECT_EQ(zlib_inflate(format, std::span{output}.first(result.produced), input.size()),
                    input);
        } else {
          EXPECT_EQ(result.status, TANDEM_STATUS_OUTPUT_TOO_SMALL);
          EXPECT_EQ(result.produced, 0u);
        }
        EXPECT_TRUE(std::all_of(output.begin() + static_cast<std::ptrdiff_t>(room), output.end(),
                                [](std::byte byte) { return byte == std::byte{0xa5}; }));
      }
    }
  }
}

TEST_F(Codecs, TheBoundIsEnoughForNoiseOfEverySize) {
  for (const std::size_t size : {0u, 1u, 2u, 100u, 65'534u, 65'535u, 65'536u, 131'070u, 131'071u}) {
    for (unsigned level = 1; level <= TANDEM_LEVEL_BEST; ++level) {
      const Bytes input = random_bytes(size, kSeed + level);
      EXPECT_EQ(zlib_inflate(Format::kGzip, compress(Format::kGzip, level, input), size), input);
    }
  }
}

TEST_F(Codecs, InflateSaysTooSmallForEverySizeBelowTheOutput) {
  const Bytes input = text(1'000);
  for (const Format format : kFormats) {
    const Bytes member = compress(format, 6, input);
    for (std::size_t room = 0; room < input.size(); ++room) {
      Bytes output(room);
      EXPECT_EQ(inflater.inflate(format, member, output).status, TANDEM_STATUS_OUTPUT_TOO_SMALL)
          << room;
    }
  }
}

TEST_F(Codecs, InflateSaysTruncatedForEveryShorterInput) {
  for (const Sample& sample : {Sample{"text", text(3'000)},
                               {"noise", random_bytes(1'000, kSeed)},
                               {"empty", {}},
                               {"zeros", Bytes(5'000)}}) {
    for (const Format format : kFormats) {
      const Bytes member = compress(format, 6, sample.bytes);
      for (std::size_t size = 0; size < member.size(); ++size) {
        Bytes output(sample.bytes.size() + 300);
        EXPECT_EQ(inflater.inflate(format, std::span{member}.first(size), output).status,
                  TANDEM_STATUS_TRUNCATED_INPUT)
            << describe(format, sample, 6) << ", " << size << " of " << member.size();
        output.resize(sample.bytes.size());
        EXPECT_NE(inflater.inflate(format, std::span{member}.first(size), output).status,
                  TANDEM_STATUS_OK);
      }
    }
  }
}

TEST_F(Codecs, NoFlippedBitOfACheckedMemberGoesUnnoticed) {
  const Bytes input = text(400);
  for (const Format format : {Format::kZlib, Format::kGzip}) {
    for (const unsigned level : {1u, 6u}) {
      Bytes member = compress(format, level, input);
      for (std::size_t bit = 0; bit < member.size() * 8; ++bit) {
        member[bit / 8] ^= std::byte{1} << (bit % 8);
        Bytes output(input.size() + 1'000);
        const CodecResult result = inflater.inflate(format, member, output);
        if (result.status == TANDEM_STATUS_OK) {
          output.resize(result.produced);
          EXPECT_EQ(output, input) << "bit " << bit;
        }
        member[bit / 8] ^= std::byte{1} << (bit % 8);
      }
    }
  }
}

TEST_F(Codecs, EveryWrongTrailerByteIsCorrupt) {
  const Bytes input = text(500);
  for (const Format format : {Format::kZlib, Format::kGzip}) {
    Bytes member = compress(format, 1, input);
    for (std::size_t back = 1; back <= trailer_size(format); ++back) {
      std::byte& byte = member[member.size() - back];
      byte ^= std::byte{0x40};
      Bytes output(input.size());
      EXPECT_EQ(inflater.inflate(format, member, output).status, TANDEM_STATUS_CORRUPT_INPUT);
      EXPECT_EQ(InflateStream(format).step(member, output, true).status,
                TANDEM_STATUS_CORRUPT_INPUT);
      byte ^= std::byte{0x40};
    }
  }
}

TEST_F(Codecs, OneMemberIsTakenAndTheNextIsLeft) {
  const Bytes first = text(5'000);
  for (const Format format : kFormats) {
    Bytes input = compress(format, 1, first);
    const std::size_t size = input.size();
    const Bytes second = compress(format, 1, text(70));
    input.insert(input.end(), second.begin(), second.end());
    Bytes output(first.size());
    const CodecResult result = inflater.inflate(format, input, output);
    EXPECT_EQ(result.status, TANDEM_STATUS_OK);
    EXPECT_EQ(result.consumed, size);
    EXPECT_EQ(output, first);
  }
}

/// Inflates `input` by pieces of random sizes up to `in_max` and `out_max`; stops at the end of the
/// member, at an error, or when nothing moves any more.
struct StreamOutcome {
  tandem_status status = TANDEM_STATUS_OK;
  std::size_t consumed = 0;
  Bytes output;
  bool end = false;
};

StreamOutcome run_stream(Format format, const Bytes& input, std::size_t in_max, std::size_t out_max,
                         unsigned seed) {
  std::mt19937 random(seed);
  InflateStream stream(format);
  StreamOutcome outcome;
  for (int idle = 0; idle < 50;) {
    const std::size_t left = input.size() - outcome.consumed;
    const std::size_t size = std::min<std::size_t>(left, random() % (in_max + 1));
    // Exact heap blocks, so that a sanitizer sees any step outside.
    const Bytes piece(input.begin() + static_cast<std::ptrdiff_t>(outcome.consumed),
                      input.begin() + static_cast<std::ptrdiff_t>(outcome.consumed + size));
    Bytes room(random() % (out_max + 1));
    const CodecResult result = stream.step(piece, room, size == left);
    outcome.consumed += result.consumed;
    outcome.output.insert(outcome.output.end(), room.begin(),
                          room.begin() + static_cast<std::ptrdiff_t>(result.produced));
    outcome.status = result.status;
    outcome.end = result.end;
    if (result.end || result.status != TANDEM_STATUS_OK) break;
    idle = result.consumed == 0 && result.produced == 0 ? idle + 1 : 0;
  }
  return outcome;
}

TEST(InflateStream, AnyChunkingGivesTheBytesAndStopsExactlyAtTheEnd) {
  const std::pair<std::size_t, std::size_t> sizes[] = {
      {1, 2'000},    {1, 3},        {1'000'000, 1},    {7, 11},
      {500, 70'000}, {70'000, 500}, {300'000, 300'000}};
  unsigned seed = kSeed;
  for (const Format format : kFormats) {
    for (const Sample& sample : samples()) {
      for (const int level : {0, 1, 6}) {
        Bytes input = zlib_compress(format, level, sample.bytes);
        const std::size_t member = input.size();
        const Bytes next = zlib_compress(format, 6, text(50));
        input.insert(input.end(), next.begin(), next.end());
        for (const auto& [in_max, out_max] : sizes) {
          SCOPED_TRACE(describe(format, sample, static_cast<unsigned>(level)) + ", chunks " +
                       std::to_string(in_max) + "/" + std::to_string(out_max) + ", seed " +
                       std::to_string(++seed));
          if (std::min(in_max, out_max) < 100 && sample.bytes.size() > 1'000) continue;
          const StreamOutcome outcome = run_stream(format, input, in_max, out_max, seed);
          ASSERT_EQ(outcome.status, TANDEM_STATUS_OK);
          ASSERT_TRUE(outcome.end);
          EXPECT_EQ(outcome.consumed, member);
          EXPECT_EQ(outcome.output, sample.bytes);
        }
      }
    }
  }
}

TEST(InflateStream, MembersOneAfterTheOtherAreReadByStartingAgain) {
  Bytes input;
  Bytes expected;
  for (std::size_t size = 0; size < 3'000; size += 271) {
    const Bytes part = random_bytes(size, kSeed + static_cast<unsigned>(size));
    const Bytes member = zlib_compress(Format::kDeflate, 6, part, Z_HUFFMAN_ONLY);
    input.insert(input.end(), member.begin(), member.end());
    expected.insert(expected.end(), part.begin(), part.end());
  }
  Bytes output;
  for (unsigned seed = kSeed; !input.empty(); ++seed) {
    const StreamOutcome outcome = run_stream(Format::kDeflate, input, 40, 30, seed);
    ASSERT_TRUE(outcome.end) << "seed " << seed;
    output.insert(output.end(), outcome.output.begin(), outcome.output.end());
    input.erase(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(outcome.consumed));
  }
  EXPECT_EQ(output, expected);
}

TEST(InflateStream, EveryShorterInputIsTruncatedOnlyWhenItIsTheLast) {
  const Bytes expected = text(2'000);
  for (const Format format : kFormats) {
    const Bytes member = zlib_compress(format, 6, expected);
    for (std::size_t size = 0; size < member.size(); ++size) {
      Bytes output(3'000);
      InflateStream stream(format);
      const CodecResult part = stream.step(std::span{member}.first(size), output, false);
      ASSERT_EQ(part.status, TANDEM_STATUS_OK);
      EXPECT_FALSE(part.end);
      EXPECT_EQ(part.consumed, size);
      EXPECT_EQ(stream.step({}, std::span{output}.first(10), true).status,
                TANDEM_STATUS_TRUNCATED_INPUT);
      EXPECT_EQ(stream.step(std::span{member}.subspan(size), output, true).status,
                TANDEM_STATUS_CORRUPT_INPUT)
          << "an ended stream went on";
    }
  }
}

TEST(InflateStream, AFullOutputIsNotTruncation) {
  const Bytes expected = text(200'000);
  const Bytes member = zlib_compress(Format::kGzip, 6, expected);
  InflateStream stream(Format::kGzip);
  Bytes output(1'000);
  const CodecResult result = stream.step(member, output, true);
  EXPECT_EQ(result.status, TANDEM_STATUS_OK);
  EXPECT_EQ(result.produced, output.size());
  EXPECT_FALSE(result.end);
}

TEST(InflateStream, AgreesWithZlibAboutDamagedMembers) {
  const Bytes input = text(6'000);
  std::mt19937 random(kSeed);
  for (const Format format : {Format::kZlib, Format::kGzip}) {
    const Bytes good = zlib_compress(format, 6, input);
    for (int round = 0; round < 3'000; ++round) {
      Bytes member = good;
      for (unsigned flips = 1 + random() % 4; flips > 0; --flips) {
        member[random() % member.size()] ^= static_cast<std::byte>(1u << random() % 8);
      }
      const std::optional<Bytes> theirs = zlib_inflate(format, member, 100'000);
      const StreamOutcome ours = run_stream(format, member, 3'000, 9'000, seed_from(random));
      Bytes output(100'000);
      const CodecResult one_shot = Inflater().inflate(format, member, output);
      // A changed header CRC flag or field is a difference that we notice and zlib may not.
      if (ours.end) {
        EXPECT_EQ(ours.output, input);
        EXPECT_TRUE(theirs.has_value()) << "round " << round;
      }
      EXPECT_EQ(ours.end, one_shot.status == TANDEM_STATUS_OK) << "round " << round;
    }
  }
}

TEST(Inflate, NoiseNeverEscapesItsBuffers) {
  std::mt19937 random(kSeed);
  Inflater inflater;
  for (int round = 0; round < 20'000; ++round) {
    Bytes input = random_bytes(1 + random() % 600, seed_from(random));
    // A dynamic block (BTYPE 2) reaches the table builders; otherwise half the rounds end at once.
    input[0] = (input[0] & std::byte{0xf8}) | static_cast<std::byte>(random() % 2 == 0 ? 4 : 2);
    Bytes output(random() % 2'000);
    const CodecResult one_shot = inflater.inflate(Format::kDeflate, input, output);
    EXPECT_LE(one_shot.produced, output.size());
    const StreamOutcome stream = run_stream(Format::kDeflate, input, 100, 100, seed_from(random));
    EXPECT_LE(stream.consumed, input.size());
  }
}

}  // namespace
}  // namespace tandem::engine::comp
