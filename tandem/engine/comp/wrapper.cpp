// SPDX-License-Identifier: Apache-2.0
#include "tandem/engine/comp/detail/wrapper.hpp"

#include <isa-l.h>
#include <libdeflate.h>

#include <algorithm>

namespace tandem::engine::comp {
namespace {

// RFC 1952 §2.3.1 "Member header and trailer"
constexpr std::uint8_t kMagic1 = 0x1f, kMagic2 = 0x8b, kMethodDeflate = 8, kOsUnix = 3;
constexpr std::uint8_t kHasHeaderCrc = 0x02, kHasExtra = 0x04, kHasName = 0x08, kHasComment = 0x10;
constexpr std::uint8_t kReservedFlags = 0xe0;
constexpr std::uint32_t kFixedSize = 10;
// RFC 1950 §2.2 "Data format"
constexpr std::uint8_t kMethodMask = 0x0f, kMaxWindowInfo = 7, kPresetDictionary = 0x20;

std::uint32_t crc32(std::uint32_t crc, std::span<const std::byte> bytes) {
  return crc32_gzip_refl(crc, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

void append(ShortBytes& to, std::uint32_t byte) {
  to.storage[to.size++] = static_cast<std::byte>(byte & 0xff);
}

}  // namespace

ShortBytes header_bytes(Format format, unsigned level) {
  ShortBytes header;
  switch (format) {
    case Format::kDeflate:
      break;
    case Format::kZlib: {
      const std::uint32_t info = kMaxWindowInfo << 4 | kMethodDeflate;
      const std::uint32_t hint = level <= 1 ? 0 : level < 6 ? 1 : level == 6 ? 2 : 3;
      const std::uint32_t word = info << 8 | hint << 6;
      append(header, info);
      append(header, hint << 6 | (31 - word % 31) % 31);
      break;
    }
    case Format::kGzip: {
      const std::uint8_t hint = level <= 1 ? 4 : level >= 9 ? 2 : 0;
      for (const std::uint8_t byte : std::array<std::uint8_t, kFixedSize>{
               kMagic1, kMagic2, kMethodDeflate, 0, 0, 0, 0, 0, hint, kOsUnix}) {
        append(header, byte);
      }
      break;
    }
  }
  return header;
}

ShortBytes trailer_bytes(Format format, std::uint32_t sum, std::uint32_t length) {
  ShortBytes trailer;
  switch (format) {
    case Format::kDeflate:
      break;
    case Format::kZlib:
      for (int shift = 24; shift >= 0; shift -= 8) append(trailer, sum >> shift);
      break;
    case Format::kGzip:
      for (int shift = 0; shift < 32; shift += 8) append(trailer, sum >> shift);
      for (int shift = 0; shift < 32; shift += 8) append(trailer, length >> shift);
      break;
  }
  return trailer;
}

std::uint32_t checksum(Format format, std::uint32_t sum, std::span<const std::byte> bytes) {
  if (bytes.empty()) return sum;  // a null pointer means "start again" to libdeflate
  if (format == Format::kZlib) return libdeflate_adler32(sum, bytes.data(), bytes.size());
  return crc32(sum, bytes);
}

HeaderReader::HeaderReader(Format format)
    : state_(format == Format::kGzip   ? State::kGzipFixed
             : format == Format::kZlib ? State::kZlib
                                       : State::kDone) {}

HeaderReader::State HeaderReader::next_field(State after) const {
  if (after < State::kExtraLength && (flags_ & kHasExtra) != 0) return State::kExtraLength;
  if (after < State::kName && (flags_ & kHasName) != 0) return State::kName;
  if (after < State::kComment && (flags_ & kHasComment) != 0) return State::kComment;
  if (after < State::kHeaderCrc && (flags_ & kHasHeaderCrc) != 0) return State::kHeaderCrc;
  return State::kDone;
}

/// The state after `byte`. A change of state starts a field at position 0.
HeaderReader::State HeaderReader::step(std::uint8_t byte) {
  const std::uint32_t position = position_++;
  switch (state_) {
    case State::kGzipFixed:
      if (position == 0 && byte != kMagic1) return State::kBad;
      if (position == 1 && byte != kMagic2) return State::kBad;
      if (position == 2 && byte != kMethodDeflate) return State::kBad;
      if (position == 3) {
        if ((byte & kReservedFlags) != 0) return State::kBad;
        flags_ = byte;
      }
      return position + 1 < kFixedSize ? state_ : next_field(state_);
    case State::kExtraLength:
      if (position == 0) {
        first_ = byte;
        return state_;
      }
      extra_left_ = static_cast<std::uint32_t>(first_ | byte << 8);
      return extra_left_ == 0 ? next_field(State::kExtra) : State::kExtra;
    case State::kExtra:
      return --extra_left_ == 0 ? next_field(state_) : state_;
    case State::kName:
    case State::kComment:
      return byte == 0 ? next_field(state_) : state_;
    case State::kHeaderCrc:
      if (position == 0) {
        first_ = byte;
        return state_;
      }
      return static_cast<std::uint32_t>(first_ | byte << 8) == (crc_ & 0xffff) ? State::kDone
                                                                               : State::kBad;
    case State::kZlib:
      if (position == 0) {
        first_ = byte;
        const bool deflate = (byte & kMethodMask) == kMethodDeflate && byte >> 4 <= kMaxWindowInfo;
        return deflate ? state_ : State::kBad;
      }
      return (first_ << 8 | byte) % 31 == 0 && (byte & kPresetDictionary) == 0 ? State::kDone
                                                                               : State::kBad;
    case State::kDone:
    case State::kBad:
      break;
  }
  return state_;
}

std::size_t HeaderReader::feed(std::span<const std::byte> bytes) {
  std::size_t taken = 0;
  std::size_t summed = 0;
  const auto sum_up = [&] {
    crc_ = crc32(crc_, bytes.subspan(summed, taken - summed));
    summed = taken;
  };
  while (taken < bytes.size() && !done() && !bad()) {
    const State next = step(std::to_integer<std::uint8_t>(bytes[taken++]));
    if (next == state_) continue;
    if (state_ != State::kHeaderCrc) sum_up();
    state_ = next;
    position_ = 0;
  }
  if (state_ != State::kHeaderCrc) sum_up();
  return taken;
}

}  // namespace tandem::engine::comp
