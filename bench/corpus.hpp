// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace tandem::bench {

/// `size_bytes` of real files of this machine, always the same ones in the same order: programs,
/// libraries, headers and texts in turn. Repeated when the machine has fewer.
std::vector<std::byte> make_corpus(std::size_t size_bytes);

}  // namespace tandem::bench
