// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tandem/base/mapping.hpp"
#include "tandem/base/result.hpp"

namespace tandem::wd::detail {

/// First address that is no user's, for every address-space layout we run on.
inline constexpr std::uint64_t kUserAddressLimit = std::uint64_t{1} << 56;

/// Maps a memfd that came from the other side: sealed so that nobody can shrink it under us, not
/// inherited by fork. From 2 MiB on, aligned so that page tables can use superpages.
/// Errors: EPROTO when it is not sealed against shrinking or is smaller than `size_bytes`; the
/// errno
///         of mmap().
Result<Mapping> map_shared(int fd, std::uint64_t size_bytes);

/// Copies between our memory and an address the user gave, which may be anything: what it cannot
/// access ends the copy and raises no signal.
/// Returns: bytes copied.
std::size_t copy_from_user(std::span<std::byte> to, std::uint64_t from);
std::size_t copy_to_user(std::uint64_t to, std::span<const std::byte> from);

}  // namespace tandem::wd::detail
