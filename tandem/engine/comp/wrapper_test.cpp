// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/comp/detail/wrapper.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::engine::comp {
namespace {

using Octets = std::vector<std::uint8_t>;

constexpr std::uint8_t kText = 1, kHeaderCrc = 2, kExtra = 4, kName = 8, kComment = 16;

/// A gzip header with the fields that `flags` asks for.
Octets gzip_header(std::uint8_t flags, std::size_t extra_size = 5) {
  Octets header{0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3};
  if ((flags & kExtra) != 0) {
    header.push_back(static_cast<std::uint8_t>(extra_size & 0xff));
    header.push_back(static_cast<std::uint8_t>(extra_size >> 8));
    header.insert(header.end(), extra_size, 0);
  }
  for (const std::uint8_t flag : {kName, kComment}) {
    if ((flags & flag) == 0) continue;
    for (const char c : std::string("a file")) header.push_back(static_cast<std::uint8_t>(c));
    header.push_back(0);
  }
  if ((flags & kHeaderCrc) != 0) {
    const auto crc = crc32(0, header.data(), static_cast<uInt>(header.size()));
    header.push_back(static_cast<std::uint8_t>(crc & 0xff));
    header.push_back(static_cast<std::uint8_t>(crc >> 8 & 0xff));
  }
  return header;
}

/// Feeds `octets` in pieces of `piece`; returns how many were taken.
std::size_t feed(HeaderReader& reader, const Octets& octets, std::size_t piece) {
  const auto bytes = std::as_bytes(std::span{octets});
  std::size_t taken = 0;
  while (taken < bytes.size() && !reader.done() && !reader.bad()) {
    taken += reader.feed(bytes.subspan(taken, std::min(piece, bytes.size() - taken)));
  }
  return taken;
}

// [RFC 1952 §2.3]
TEST(GzipHeader, EveryCombinationOfFieldsIsReadInPiecesOfAnySize) {
  for (unsigned flags = 0; flags < 0x20; ++flags) {
    const Octets header = gzip_header(static_cast<std::uint8_t>(flags));
    Octets input = header;
    input.insert(input.end(), {0, 0, 0});
    for (const std::size_t piece : {1u, 2u, 3u, 7u, 100u}) {
      HeaderReader reader(Format::kGzip);
      EXPECT_EQ(feed(reader, input, piece), header.size())
          << "flags " << flags << ", piece " << piece;
      EXPECT_TRUE(reader.done());
    }
  }
}

TEST(GzipHeader, IsNotDoneBeforeItsLastByte) {
  const Octets header = gzip_header(kText | kHeaderCrc | kExtra | kName | kComment);
  for (std::size_t size = 0; size < header.size(); ++size) {
    HeaderReader reader(Format::kGzip);
    feed(reader, Octets(header.begin(), header.begin() + static_cast<std::ptrdiff_t>(size)), 4);
    EXPECT_FALSE(reader.done() || reader.bad()) << size;
  }
}

TEST(GzipHeader, AnExtraFieldMayBeEmptyOrLong) {
  for (const std::size_t size : {0u, 1u, 65'535u}) {
    const Octets header = gzip_header(kExtra | kHeaderCrc, size);
    HeaderReader reader(Format::kGzip);
    EXPECT_EQ(feed(reader, header, 1'000), header.size());
    EXPECT_TRUE(reader.done());
  }
}

TEST(GzipHeader, AnyChangedBitUnderAHeaderCrcIsNoticed) {
  const Octets good = gzip_header(kHeaderCrc | kExtra | kName);
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Octets header = good;
    header[bit / 8] = static_cast<std::uint8_t>(header[bit / 8] ^ 1u << bit % 8);
    if (bit / 8 == 3) continue;  // other flags: another header
    HeaderReader reader(Format::kGzip);
    feed(reader, header, 3);
    EXPECT_FALSE(reader.done()) << bit;
  }
}

TEST(GzipHeader, WrongMagicMethodOrReservedFlagsAreBad) {
  for (const auto& [at, value] :
       {std::pair{0u, 0x1e}, {1u, 0x8c}, {2u, 7}, {3u, 0x20}, {3u, 0x80}}) {
    Octets header = gzip_header(0);
    header[at] = static_cast<std::uint8_t>(value);
    HeaderReader reader(Format::kGzip);
    feed(reader, header, 10);
    EXPECT_TRUE(reader.bad());
  }
}

// [RFC 1950 §2.2]
TEST(ZlibHeader, IsDecidedAsZlibDecides) {
  for (unsigned first = 0; first < 256; ++first) {
    for (unsigned second = 0; second < 256; ++second) {
      const Octets header{static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(second)};
      const bool preset_dictionary = (second & 0x20) != 0;
      z_stream stream{};
      ASSERT_EQ(inflateInit2(&stream, 15), Z_OK);
      Octets output(8);
      stream.next_in = const_cast<Bytef*>(header.data());
      stream.avail_in = 2;
      stream.next_out = output.data();
      stream.avail_out = 8;
      const bool accepted = inflate(&stream, Z_NO_FLUSH) != Z_DATA_ERROR && !preset_dictionary;
      inflateEnd(&stream);
      HeaderReader reader(Format::kZlib);
      feed(reader, header, 1);
      EXPECT_EQ(reader.done(), accepted) << first << ' ' << second;
      EXPECT_EQ(reader.bad(), !accepted);
    }
  }
}

TEST(RawDeflate, HasNoHeaderAndNoTrailer) {
  EXPECT_TRUE(HeaderReader(Format::kDeflate).done());
  EXPECT_EQ(header_bytes(Format::kDeflate, 1).size, 0u);
  EXPECT_EQ(trailer_bytes(Format::kDeflate, 1, 1).size, 0u);
}

TEST(Header, IsOneThatTheReaderTakes) {
  for (const Format format : {Format::kDeflate, Format::kZlib, Format::kGzip}) {
    for (unsigned level = 0; level <= 12; ++level) {
      const ShortBytes header = header_bytes(format, level);
      HeaderReader reader(format);
      EXPECT_EQ(reader.feed(header.bytes()), header.size);
      EXPECT_TRUE(reader.done());
    }
  }
}

TEST(Checksum, ContinuesOverPieces) {
  const std::string text = "123456789";
  const auto bytes = std::as_bytes(std::span{text});
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    for (const Format format : {Format::kDeflate, Format::kZlib, Format::kGzip}) {
      std::uint32_t sum = checksum(format, checksum_start(format), bytes.first(cut));
      sum = checksum(format, sum, {});
      sum = checksum(format, sum, bytes.subspan(cut));
      EXPECT_EQ(sum, format == Format::kZlib ? 0x091e01deu : 0xcbf43926u);
    }
  }
}

}  // namespace
}  // namespace tandem::engine::comp
