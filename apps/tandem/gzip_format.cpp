// SPDX-License-Identifier: Apache-2.0
#include "apps/tandem/gzip_format.hpp"

namespace tandem::cli {
namespace {

void put32(std::span<std::byte> to, std::size_t at, std::uint32_t value) {
  for (std::size_t i = 0; i < 4; ++i) {
    to[at + i] = static_cast<std::byte>((value >> (8 * i)) & 0xffu);
  }
}

std::uint32_t get32(std::span<const std::byte> from, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    value |= std::to_integer<std::uint32_t>(from[at + i]) << (8 * i);
  }
  return value;
}

constexpr std::byte kFlagExtra{4};

}  // namespace

void put_member_header(std::span<std::byte, kMemberHeader> to, std::uint32_t member_size,
                       unsigned level, std::uint32_t mtime) {
  // magic, method deflate, flags, mtime, level hint, Unix, length of extra, subfield id and length
  to[0] = std::byte{0x1f};
  to[1] = std::byte{0x8b};
  to[2] = std::byte{8};
  to[3] = kFlagExtra;
  put32(to, 4, mtime);
  to[8] = level >= 9 ? std::byte{2} : level <= 1 ? std::byte{4} : std::byte{0};
  to[9] = std::byte{3};
  to[10] = std::byte{8};
  to[11] = std::byte{0};
  to[12] = std::byte{'T'};
  to[13] = std::byte{'D'};
  to[14] = std::byte{4};
  to[15] = std::byte{0};
  put32(to, 16, member_size);
}

void put_member_trailer(std::span<std::byte, kMemberTrailer> to, std::uint32_t crc,
                        std::uint32_t size_bytes) {
  put32(to, 0, crc);
  put32(to, 4, size_bytes);
}

bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

std::optional<std::uint32_t> sized_member(std::span<const std::byte> bytes) {
  if (bytes.size() < kMemberHeader || !is_gzip(bytes)) return std::nullopt;
  const bool ours = bytes[2] == std::byte{8} && bytes[3] == kFlagExtra &&
                    bytes[10] == std::byte{8} && bytes[11] == std::byte{0} &&
                    bytes[12] == std::byte{'T'} && bytes[13] == std::byte{'D'} &&
                    bytes[14] == std::byte{4} && bytes[15] == std::byte{0};
  if (!ours) return std::nullopt;
  const std::uint32_t size = get32(bytes, 16);
  if (size < kMemberHeader + kMemberTrailer) return std::nullopt;
  return size;
}

std::uint32_t inflated_size(std::span<const std::byte> member) {
  return member.size() < 4 ? 0 : get32(member, member.size() - 4);
}

}  // namespace tandem::cli
