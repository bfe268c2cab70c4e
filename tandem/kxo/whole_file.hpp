// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tandem/base/result.hpp"

namespace tandem::kxo {

/// Writes the file at once or not at all: who reads it finds the old one or the new one, also when
/// the machine stops meanwhile. Everybody may read it. Errors: a sentence about the file.
Result<void, std::string> write_whole_file(const std::string& path, std::string_view bytes);

/// Errors: a sentence about a file that cannot be read, is no regular one, or has more than
///         `most_bytes`.
/// `begins_with`: of a file that does not, no more is read than it takes to see that: it may be
/// large.
Result<std::string, std::string> read_whole_file(const std::string& path, std::uint64_t most_bytes,
                                                 std::string_view begins_with = {});

/// A checksum: one byte that is changed changes it.
std::uint64_t fnv1a(std::string_view bytes) noexcept;

}  // namespace tandem::kxo
