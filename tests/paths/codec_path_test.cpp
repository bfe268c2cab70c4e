// SPDX-License-Identifier: Apache-2.0
/// Compression on every path, judged by zlib.
#include <zlib.h>

#include <vector>

#include "tests/paths/path_fixture.hpp"

namespace tandem::paths {
namespace {

class CodecPath : public Path {
 protected:
  void SetUp() override { open(queue_, "gzip"); }

  /// Window bits by which zlib knows a format.
  static int window_bits(std::uint32_t opcode) {
    switch (opcode) {
      case WD_OP_DEFLATE:
      case WD_OP_INFLATE:
        return -15;
      case WD_OP_ZLIB:
      case WD_OP_ZLIB_INFLATE:
        return 15;
      default:
        return 31;
    }
  }

  static std::vector<std::byte> zlib_inflate(std::span<const std::byte> in, int bits,
                                             std::size_t room) {
    std::vector<std::byte> out(room + 1);
    z_stream stream{};
    EXPECT_EQ(inflateInit2(&stream, bits), Z_OK);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
    EXPECT_EQ(stream.avail_in, 0u);
    out.resize(out.size() - stream.avail_out);
    inflateEnd(&stream);
    return out;
  }

  static std::vector<std::byte> zlib_deflate(std::span<const std::byte> in, int bits) {
    std::vector<std::byte> out(in.size() + in.size() / 8 + 256);
    z_stream stream{};
    EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out.resize(out.size() - stream.avail_out);
    deflateEnd(&stream);
    return out;
  }

  /// Text-like bytes with repetitions at many distances.
  static void text(std::span<std::byte> bytes) {
    std::uint32_t state = 12345;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      state = state * 1664525 + 1013904223;
      bytes[i] = (state >> 28) < 12 && i > 300 ? bytes[i - 1 - (state >> 20) % 300]
                                               : static_cast<std::byte>('a' + (state >> 24) % 26);
    }
  }
};
TANDEM_ALL_PATHS(CodecPath);

constexpr std::uint32_t kCompress[] = {WD_OP_DEFLATE, WD_OP_ZLIB, WD_OP_GZIP};
constexpr std::uint32_t kExpand[] = {WD_OP_INFLATE, WD_OP_ZLIB_INFLATE, WD_OP_GZIP_INFLATE};

TEST_P(CodecPath, ZlibReadsWhatWeWriteAtEveryLevel) {
  const auto in = buffer(150'000);
  const auto out = buffer(200'000);
  text(in);
  for (const auto opcode : kCompress) {
    for (std::uint32_t level = 1; level <= 9; ++level) {
      auto request = make(opcode, in, out);
      request.param = level;
      const auto done = run(request);
      ASSERT_EQ(done.status, TANDEM_STATUS_OK) << wd_strstatus(done.status);
      const auto back = zlib_inflate(out.first(done.done), window_bits(opcode), in.size());
      ASSERT_EQ(back.size(), in.size());
      ASSERT_EQ(std::memcmp(back.data(), in.data(), in.size()), 0);
    }
  }
}

TEST_P(CodecPath, OperandsOfBothKindsMix) {
  const auto in = buffer(150'000);
  const auto packed = other_buffer(200'000);
  const auto back = buffer(150'000);
  text(in);
  for (std::uint32_t level = 1; level <= 9; ++level) {
    auto request = make(WD_OP_GZIP, in, packed);
    request.param = level;
    const auto done = run(request);
    ASSERT_EQ(done.status, TANDEM_STATUS_OK) << wd_strstatus(done.status);
    const auto expanded = run(make(WD_OP_GZIP_INFLATE, packed.first(done.done), back));
    ASSERT_EQ(expanded.status, TANDEM_STATUS_OK) << wd_strstatus(expanded.status);
    ASSERT_EQ(std::memcmp(in.data(), back.data(), in.size()), 0);
  }
}

TEST_P(CodecPath, WeReadWhatZlibWrites) {
  const auto plain = buffer(150'000);
  text(plain);
  const auto in = buffer(200'000);
  const auto out = buffer(150'000);
  for (const auto opcode : kExpand) {
    const auto packed = zlib_deflate(plain, window_bits(opcode));
    std::memcpy(in.data(), packed.data(), packed.size());
    const auto done = run(make(opcode, in.first(packed.size()), out));
    ASSERT_EQ(done.status, TANDEM_STATUS_OK) << wd_strstatus(done.status);
    EXPECT_EQ(done.done, plain.size());
    EXPECT_EQ(done.result, packed.size());
    EXPECT_EQ(std::memcmp(out.data(), plain.data(), plain.size()), 0);
  }
}

TEST_P(CodecPath, CorruptTruncatedAndTooSmallAreTold) {
  const auto plain = buffer(50'000);
  text(plain);
  const auto packed = zlib_deflate(plain, 31);
  const auto in = buffer(100'000);
  const auto out = buffer(50'000);
  std::memcpy(in.data(), packed.data(), packed.size());
  const auto good = in.first(packed.size());
  EXPECT_EQ(run(make(WD_OP_GZIP_INFLATE, good.first(good.size() / 2), out)).status,
            TANDEM_STATUS_TRUNCATED_INPUT);
  EXPECT_EQ(run(make(WD_OP_GZIP_INFLATE, good, out.first(100))).status,
            TANDEM_STATUS_OUTPUT_TOO_SMALL);
  in[packed.size() - 6] ^= std::byte{0x10};  // in the CRC
  EXPECT_EQ(run(make(WD_OP_GZIP_INFLATE, good, out)).status, TANDEM_STATUS_CORRUPT_INPUT);
  EXPECT_EQ(run(make(WD_OP_GZIP, plain, out.first(20))).status, TANDEM_STATUS_OUTPUT_TOO_SMALL);
}

TEST_P(CodecPath, FaultingOperandsFault) {
  const auto good = buffer(8192);
  text(good);
  void* hole = ::mmap(nullptr, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const std::span<std::byte> bad(static_cast<std::byte*>(hole), 8192);
  auto done = run(make(WD_OP_GZIP, bad, good));
  EXPECT_EQ(done.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(done.fault_address, reinterpret_cast<std::uint64_t>(hole));
  done = run(make(WD_OP_GZIP, good, bad));
  EXPECT_EQ(done.status, TANDEM_STATUS_FAULT);
  EXPECT_EQ(done.fault_address, reinterpret_cast<std::uint64_t>(hole));
}

TEST_P(CodecPath, AStreamInPiecesOfAnySize) {
  const auto plain = buffer(300'000);
  text(plain);
  const auto packed = zlib_deflate(plain, 31);
  const auto in = buffer(packed.size());
  std::memcpy(in.data(), packed.data(), packed.size());
  const auto out = buffer(10'000);
  std::size_t consumed = 0;
  std::size_t produced = 0;
  bool ended = false;
  for (int round = 0; round < 100'000 && !ended; ++round) {
    const std::size_t piece = std::min<std::size_t>(packed.size() - consumed, 777);
    auto request = make(WD_OP_INFLATE_STREAM, in.subspan(consumed, piece), out);
    request.param = 2;
    request.flags = round == 0 ? TANDEM_DESC_FIRST : 0;
    const auto done = run(request);
    ASSERT_EQ(done.status, TANDEM_STATUS_OK) << wd_strstatus(done.status);
    ASSERT_LE(produced + done.done, plain.size());
    ASSERT_EQ(std::memcmp(out.data(), plain.data() + produced, done.done), 0);
    consumed += done.result;
    produced += done.done;
    ended = (done.result_flags & TANDEM_CPL_STREAM_END) != 0;
  }
  EXPECT_TRUE(ended);
  EXPECT_EQ(produced, plain.size());
  EXPECT_EQ(consumed, packed.size());
}

}  // namespace
}  // namespace tandem::paths
