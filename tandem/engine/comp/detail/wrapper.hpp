// SPDX-License-Identifier: Apache-2.0
/// The bytes around a deflate stream: gzip members (RFC 1952), zlib streams (RFC 1950), or none.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tandem/abi/ring.h"

namespace tandem::engine::comp {

enum class Format : std::uint8_t {
  kDeflate = TANDEM_FORMAT_DEFLATE,
  kZlib = TANDEM_FORMAT_ZLIB,
  kGzip = TANDEM_FORMAT_GZIP,
};

/// Longest trailer: gzip's CRC-32 and length.
inline constexpr std::size_t kTrailerMax = 8;
/// Longest header that header_bytes() makes: gzip's.
inline constexpr std::size_t kHeaderMax = 10;

/// A few bytes of a header or trailer.
struct ShortBytes {
  std::array<std::byte, kHeaderMax> storage{};
  std::size_t size = 0;
  std::span<const std::byte> bytes() const { return std::span{storage}.first(size); }
};

/// The header that we write; `level` only becomes the format's hint about it.
ShortBytes header_bytes(Format format, unsigned level);

/// The trailer of `length` bytes (modulo 2^32) whose checksum() is `sum`.
ShortBytes trailer_bytes(Format format, std::uint32_t sum, std::uint32_t length);
constexpr std::size_t trailer_size(Format format) {
  return format == Format::kGzip ? 8 : format == Format::kZlib ? 4 : 0;
}

/// The checksum of no bytes, where checksum() starts.
constexpr std::uint32_t checksum_start(Format format) { return format == Format::kZlib ? 1 : 0; }

/// Continues `sum` over `bytes`: Adler-32 for zlib, CRC-32 otherwise.
std::uint32_t checksum(Format format, std::uint32_t sum, std::span<const std::byte> bytes);

/// Reads a header that arrives in pieces of any size, in constant memory.
///
/// gzip's extra field, name and comment are skipped, its header CRC is checked. Rejected: reserved
/// flags, methods other than deflate, zlib's preset dictionaries.
class HeaderReader {
 public:
  explicit HeaderReader(Format format);

  /// Takes bytes up to the end of the header; returns how many. Call until done() or bad().
  std::size_t feed(std::span<const std::byte> bytes);
  bool done() const { return state_ == State::kDone; }
  bool bad() const { return state_ == State::kBad; }

 private:
  enum class State : std::uint8_t {
    kGzipFixed,
    kExtraLength,
    kExtra,
    kName,
    kComment,
    kHeaderCrc,
    kZlib,
    kDone,
    kBad,
  };
  State next_field(State after) const;
  State step(std::uint8_t byte);

  State state_;
  std::uint8_t flags_ = 0;
  std::uint8_t first_ = 0;      // first byte of a two-byte field
  std::uint32_t position_ = 0;  // within the field
  std::uint32_t extra_left_ = 0;
  std::uint32_t crc_ = 0;  // of the header bytes before the header CRC
};

}  // namespace tandem::engine::comp
