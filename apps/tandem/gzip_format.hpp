// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace tandem::cli {

/// gzip members (RFC 1952) as `tandem compress` writes them: each holds one block and says in an
/// extra field how long it is, so that members can be found, and inflated, without decoding.
///
/// Extra field: subfield 'T' 'D', four bytes: length of the whole member, little-endian.
inline constexpr std::size_t kMemberHeader = 20;
inline constexpr std::size_t kMemberTrailer = 8;

/// Writes the header of a member of `member_size` bytes. `mtime`: seconds since 1970, 0 none.
void put_member_header(std::span<std::byte, kMemberHeader> to, std::uint32_t member_size,
                       unsigned level, std::uint32_t mtime);
/// Writes the trailer of a block of `size_bytes` with the CRC-32 `crc`.
void put_member_trailer(std::span<std::byte, kMemberTrailer> to, std::uint32_t crc,
                        std::uint32_t size_bytes);
/// The length of the member that `bytes` begin with, if its header is one of ours.
std::optional<std::uint32_t> sized_member(std::span<const std::byte> bytes);
/// The number of bytes a member inflates to (modulo 2^32), from its trailer.
std::uint32_t inflated_size(std::span<const std::byte> member);
/// Whether `bytes` begin as every gzip member does.
bool is_gzip(std::span<const std::byte> bytes);

}  // namespace tandem::cli
