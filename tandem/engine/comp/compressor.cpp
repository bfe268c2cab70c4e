// SPDX-License-Identifier: Apache-2.0
#include <isa-l.h>
#include <libdeflate.h>

#include <algorithm>
#include <cstring>

#include "tandem/base/planted_fault.hpp"
#include "tandem/engine/comp/detail/codec.hpp"

namespace tandem::engine::comp {
namespace {

constexpr std::size_t kStoredMax = 65535;     // RFC 1951 §3.2.4 "Non-compressed blocks"
constexpr std::size_t kStoredHeaderSize = 5;  // 3 bits, alignment, LEN, NLEN
constexpr std::uint32_t kLevelBufferSize =
    std::max<std::uint32_t>(ISAL_DEF_LVL1_DEFAULT, ISAL_DEF_LVL3_DEFAULT);

/// Writes `input` as stored blocks; 0 when they do not fit.
std::size_t store(std::span<const std::byte> input, std::span<std::byte> output) {
  const std::size_t blocks = std::max<std::size_t>(1, (input.size() + kStoredMax - 1) / kStoredMax);
  if (output.size() < input.size() + blocks * kStoredHeaderSize) return 0;
  std::byte* to = output.data();
  for (std::size_t block = 0; block < blocks; ++block) {
    const std::size_t size = std::min(kStoredMax, input.size());
    const std::uint16_t fields[2] = {static_cast<std::uint16_t>(size),
                                     static_cast<std::uint16_t>(~size)};
    *to++ = std::byte{block + 1 == blocks};
    for (const std::uint16_t field : fields) {
      *to++ = static_cast<std::byte>(field & 0xff);
      *to++ = static_cast<std::byte>(field >> 8);
    }
    if (size != 0) std::memcpy(to, input.data(), size);
    to += size;
    input = input.subspan(size);
  }
  return static_cast<std::size_t>(to - output.data());
}

}  // namespace

void Compressor::CompressorDeleter::operator()(libdeflate_compressor* compressor) const {
  libdeflate_free_compressor(compressor);
}

Compressor::Compressor()
    : stream_(std::make_unique<isal_zstream>()),
      level_buffer_(std::make_unique<std::uint8_t[]>(kLevelBufferSize)) {}
Compressor::~Compressor() = default;

std::size_t Compressor::isal(unsigned isal_level, std::span<const std::byte> input,
                             std::span<std::byte> output) {
  isal_zstream& stream = *stream_;
  isal_deflate_stateless_init(&stream);
  stream.level = isal_level;
  stream.level_buf = level_buffer_.get();
  stream.level_buf_size = isal_level == 1 ? ISAL_DEF_LVL1_DEFAULT : ISAL_DEF_LVL3_DEFAULT;
  stream.end_of_stream = 1;
  stream.flush = NO_FLUSH;
  stream.gzip_flag = IGZIP_DEFLATE;
  stream.next_in = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(input.data()));
  stream.avail_in = static_cast<std::uint32_t>(input.size());
  stream.next_out = reinterpret_cast<std::uint8_t*>(output.data());
  stream.avail_out = static_cast<std::uint32_t>(output.size());
  return isal_deflate_stateless(&stream) == COMP_OK ? stream.total_out : 0;
}

std::size_t Compressor::libdeflate(unsigned level, std::span<const std::byte> input,
                                   std::span<std::byte> output) {
  auto& compressor = compressors_[level];
  if (!compressor) compressor.reset(libdeflate_alloc_compressor(static_cast<int>(level)));
  if (!compressor) return 0;  // no memory: the caller stores
  return libdeflate_deflate_compress(compressor.get(), input.data(), input.size(), output.data(),
                                     output.size());
}

CodecResult Compressor::compress(Format format, unsigned level, std::span<const std::byte> input,
                                 std::span<std::byte> output) {
  if (level == TANDEM_LEVEL_DEFAULT) level = TANDEM_LEVEL_FASTEST;
  const ShortBytes header = header_bytes(format, level);
  const std::size_t around = header.size + trailer_size(format);
  if (output.size() <= around) return {.status = TANDEM_STATUS_OUTPUT_TOO_SMALL};

  const std::span<std::byte> body = output.subspan(header.size, output.size() - around);
  std::size_t size = kUsesIsal && level <= 2 ? isal(level == 1 ? 1 : 3, input, body)
                                             : libdeflate(level, input, body);
  if (size == 0) size = store(input, body);
  if (size == 0) return {.status = TANDEM_STATUS_OUTPUT_TOO_SMALL};

  const std::uint32_t sum = checksum(format, checksum_start(format), input);
  const ShortBytes trailer = trailer_bytes(format, sum, static_cast<std::uint32_t>(input.size()));
  std::ranges::copy(header.bytes(), output.begin());
  std::ranges::copy(trailer.bytes(), body.begin() + static_cast<std::ptrdiff_t>(size));
  const std::size_t produced = size + around;
  if (planted_fault("comp-corrupt-output")) output[produced / 2] ^= std::byte{1};
  return {.consumed = input.size(), .produced = produced, .checksum = sum, .end = true};
}

}  // namespace tandem::engine::comp
